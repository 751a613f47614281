"""Bars for workers that train side by side, and what they wait for; shown in a terminal only."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mnist_pipeline.system.console import err


class WorkerBars:
    """A bar for all trainings, one for each worker's, and a line for what is waited for. Its callers take turns."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=err(),
            disable=not err().is_terminal,
            transient=True,
        )
        self._of_executors: dict[int, TaskID] = {}
        self._total: TaskID | None = None
        self._wait: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, what: str, *, num_done: int, num_total: int) -> None:
        """Start anew, with `num_done` of `num_total` trainings."""
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._of_executors.clear()
        self._wait = None
        self._total = self._bars.add_task(what, total=num_total, completed=num_done, note="")

    def count(self, num_done: int, *, note: str) -> None:
        """Show how many trainings are done."""
        if self._total is not None:
            self._bars.update(self._total, completed=num_done, note=note)

    def train(self, executor: int, *, name: str, epoch: int, num_epochs: int, note: str) -> None:
        """Show an epoch in the bar of a worker."""
        if executor not in self._of_executors:
            self._of_executors[executor] = self._bars.add_task("", total=num_epochs, note="")
        shown = f"worker {executor + 1}  {name}"
        task = self._of_executors[executor]
        self._bars.update(task, description=shown, total=num_epochs, completed=epoch, note=f"epochs  {note}")

    def wait(self, what: str | None) -> None:
        """Show what is waited for; None: nothing."""
        if self._wait is not None:
            self._bars.remove_task(self._wait)
        self._wait = None if what is None else self._bars.add_task(f"waiting for {what}", total=None, note="")
