"""The terminal output of a sweep: its progress and its result."""

import math
import threading
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mnist_pipeline.reports.configurations import short_names
from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.terminal import print_table
from mnist_pipeline.sweep.artifacts import tabulate_trials
from mnist_pipeline.sweep.settings import Direction, SweepConfig
from mnist_pipeline.sweep.sweep import SweepResult
from mnist_pipeline.sweep.trainings import Ending
from mnist_pipeline.system.console import err, out, print_fields
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking.record import Point

NUM_SHOWN_TRIALS = 10


class SweepProgress:
    """Prints a line for every training that ends; in a terminal, a bar per worker shows its training."""

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=err(),
            disable=not err().is_terminal,
            transient=True,
        )
        self._bars_of_executors: dict[int, TaskID] = {}
        self._total: TaskID | None = None
        self._wait: TaskID | None = None
        self._stage = ""
        self._num_done = self._num_begun_with = self._num_total = 0
        self._best: float | None = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, *, stage: str, num_done: int, num_total: int, best: float | None = None) -> None:
        """Start a stage and its counts."""
        self._stage, self._num_done, self._num_begun_with, self._num_total = stage, num_done, num_done, num_total
        self._best, self._began = best, time.perf_counter()
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars_of_executors.clear()
        self._wait = None
        self._total = self._bars.add_task(stage, total=num_total, completed=num_done, note="")
        err().print(f"{stage}: {num_done} of {num_total} are done; by {self._config.metric}")

    def wait(self, what: str | None) -> None:
        """Show what the sweep waits for."""
        with self._lock:
            if self._wait is not None:
                self._bars.remove_task(self._wait)
            self._wait = None if what is None else self._bars.add_task(f"waiting for {what}", total=None, note="")

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        """Show the epoch in the worker's bar."""
        with self._lock:
            if executor not in self._bars_of_executors:
                self._bars_of_executors[executor] = self._bars.add_task("", total=num_epochs, note="")
            value = point.metrics[self._config.metric]
            self._bars.update(
                self._bars_of_executors[executor],
                description=f"worker {executor + 1}  {name}",
                total=num_epochs,
                completed=point.number,
                note=f"epochs  {value:.4f}",
            )

    def finish(self, executor: int, *, name: str, ending: Ending, detail: str, value: float | None) -> None:
        """Print how the training ended, and how many are done."""
        with self._lock:
            if value is not None:
                self._num_done += 1
                if ending is Ending.complete and self._is_better(value):
                    self._best = value
            num_new = max(self._num_done - self._num_begun_with, 1)
            left = (time.perf_counter() - self._began) / num_new * max(self._num_total - self._num_done, 0)
            shown = "" if value is None else f"{value:.4f}  "
            left_shown = "" if err().is_terminal else f"  {_describe_sec(left)} left"
            best = "" if self._best is None or self._stage != "trials" else f"best {self._best:.4f}  "
            err().print(
                f"{name:<22} {_describe_ending(ending, detail):<28} {shown}{best}"
                f"{self._num_done}/{self._num_total}{left_shown}",
                soft_wrap=True,
            )
            if self._total is not None:
                self._bars.update(self._total, completed=self._num_done, note=f"{_describe_sec(left)} left")

    def print_stopped(self) -> None:
        """Print how much is done when the sweep was stopped."""
        err().print(f"stopped: {self._num_done} of {self._num_total} {self._stage} are done; the same command resumes")

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best if self._config.direction is Direction.maximize else value < self._best


def _describe_ending(ending: Ending, detail: str) -> str:
    words = {Ending.complete: "done, ", Ending.pruned: "pruned after ", Ending.failed: "failed: "}
    return f"{words[ending]}{detail}"


def _describe_sec(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def print_result(result: SweepResult) -> None:
    """Print the best trials, the verdict with its intervals, the winner, and what to do next."""
    trials = tabulate_trials(result.study)
    swept = list(result.config.space)
    ascending = result.config.direction is Direction.minimize
    best = trials[trials["state"] == "complete"].sort_values(["value", "number"], ascending=[ascending, True])
    names = short_names(swept)
    headings = ("trial", result.config.metric.split("/")[-1], *(names[key] for key in swept))
    rows = tuple(
        (str(row["number"]), f"{row['value']:.4f}", *(_describe_value(row.get(key)) for key in swept))
        for row in best.head(NUM_SHOWN_TRIALS).to_dict("records")
    )
    table = Table(f"The best {len(rows)} of {len(trials)} trials", headings, rows, (True,) * len(headings))
    out().print(table.caption, style="bold")
    print_table(table)
    counts = trials["state"].value_counts()
    lines = {
        "trials": ", ".join(f"{counts[state]} {state}" for state in ("complete", "pruned", "failed") if state in counts)
    }
    if result.verdict is not None:
        for comparison in result.verdict.comparisons:
            lines[f"{comparison.name} - baseline"] = (
                f"{comparison.mean:+.5f}  ({comparison.low:+.5f} to {comparison.high:+.5f})"
                f"{'  better' if comparison.is_better(result.config.direction) else ''}"
            )
        lines["confidence"] = f"{result.verdict.confidence:.0%}, of all intervals together"
        lines["winner"] = result.verdict.winner or result.verdict.describe()
    if result.final is not None:
        lines["winner's test accuracy"] = f"{result.final.metrics['test/accuracy']:.4f}"
        lines["winner's run"] = f"{result.final.name} ({result.final.run_id})"
    lines["study"] = result.study.name
    lines["address"] = result.parent.address
    lines["next"] = f"{command('ui')} shows the trials; {command('dashboard')} shows the study"
    print_fields(lines, width=24)


def _describe_value(value: object) -> str:
    """Return a value of a swept key; nothing where the key has no meaning beside the other values of the trial."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
