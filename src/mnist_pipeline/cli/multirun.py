"""Runs of `train` that workers train: those of a --multirun at once, or any on a cluster."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mnist_pipeline.cli.errors import ReportedError, print_error
from mnist_pipeline.cli.stopping import stop_on_signals
from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Config, ExecutorName
from mnist_pipeline.system.errors import Terminated
from mnist_pipeline.system.heavy_imports import begin, heavy_imports
from mnist_pipeline.system.versions import count_usable_cores

if TYPE_CHECKING:
    from mnist_pipeline.cli.console import Job
    from mnist_pipeline.executors.pool import Places
    from mnist_pipeline.pipeline.request import Request
    from mnist_pipeline.pipeline.run import RunResult
    from mnist_pipeline.system.patience import OnWait
    from mnist_pipeline.tracking.record import Point


def train_with_workers(configs: Sequence[Config], runs: Sequence[Sequence[str]], *, config_dir: str | None) -> None:
    """Train the runs, each by a worker, and print what became of them.

    Raises:
        ReportedError: One of them failed.
    """
    begin()
    from mnist_pipeline.executors import places

    places.begin(configs[0].executor)
    with heavy_imports():
        from mnist_pipeline.cli import console
        from mnist_pipeline.executors.pool import StopRequest
        from mnist_pipeline.executors.side_by_side import train_side_by_side
        from mnist_pipeline.pipeline import request, stages  # noqa: F401 (now, while no other run prints)
        from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
        from mnist_pipeline.tracking.record import Tag

    if len(runs) > 1:  # what the rooms log of a single run says nothing beside that of others
        for room in ("data", "pipeline"):
            logging.getLogger(f"mnist_pipeline.{room}").setLevel(logging.WARNING)
    common = set.intersection(*map(set, runs)) if len(runs) > 1 else set()
    jobs = [
        console.Job(number, len(runs), tuple(one for one in overrides if one not in common))
        for number, overrides in enumerate(runs, start=1)
    ]
    composing = partial(compose.compose_with_data, config_dir=config_dir)
    other_cpus: list[str] = []

    def prepare(number: int) -> "Request":
        asked = request.prepare(configs[number], runs[number], compose_with_data=composing)
        others = {Tag.OTHER_PROCESSORS: "; ".join(sorted(other_cpus))} if other_cpus else {}
        return dataclasses.replace(asked, tags={**asked.tags, **others})

    stop = StopRequest()
    stop_on_signals(stop.set)
    with Progress(jobs, configs) as progress:

        def on_wait(what: str | None) -> None:
            stop.check()
            progress.bars.wait(what)

        try:
            results = train_side_by_side(
                configs,
                prepare,
                MlflowTracker(configs[0].tracking, on_wait=on_wait),
                _open_places(configs, on_wait, other_cpus.append),
                watch=progress,
                stop=stop,
            )
        except (KeyboardInterrupt, Terminated):
            progress.print_stopped()
            raise
    if len(runs) == 1 and results[0] is not None:
        console.print_result(results[0])
    elif len(runs) > 1:
        console.print_jobs(list(zip(jobs, results, strict=True)))
    if progress.failure is not None:
        raise ReportedError(progress.failure)


def _open_places(configs: Sequence[Config], on_wait: "OnWait", on_other_cpu: Callable[[str], None]) -> "Places":
    from mnist_pipeline.executors.places import open_places

    executor = configs[0].executor
    most = executor.num_workers
    if most is None:
        most = count_usable_cores() if executor.name is ExecutorName.local else len(configs)
    return open_places(
        executor,
        modules=list(dict.fromkeys(module for config in configs for module in config.modules())),
        num_workers=min(most, len(configs)),
        on_wait=on_wait,
        on_other_cpu=on_other_cpu,
    )


class Progress:
    """Prints each run as it ends; in a terminal, a bar per worker shows its training.

    Attributes:
        failure: The last one.
    """

    def __init__(self, jobs: "Sequence[Job]", configs: Sequence[Config]) -> None:
        from mnist_pipeline.cli.worker_bars import WorkerBars

        self.bars = WorkerBars()
        self.failure: Exception | None = None
        self._jobs = jobs
        self._configs = configs
        self._num_done = 0

    def __enter__(self) -> Self:
        self.bars.__enter__()
        self.bars.begin("runs", num_done=0, num_total=len(self._jobs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.__exit__(kind, error, trace)

    def train(self, executor: int, *, number: int, point: "Point") -> None:
        """Show the epoch in the worker's bar."""
        num_epochs = self._configs[number].train.num_epochs
        note = f"{point.metrics['train/accuracy']:.4f}"
        self.bars.train(executor, name=f"run {number + 1}", epoch=point.number, num_epochs=num_epochs, note=note)

    def finish(self, number: int, result: "RunResult | Exception") -> None:
        """Print the scores of the run, or why it failed."""
        from mnist_pipeline.cli import console

        self._num_done += 1
        self.bars.count(self._num_done, note="")
        if len(self._jobs) > 1:
            console.print_job(self._jobs[number])
        if isinstance(result, Exception):
            self.failure = result
            print_error(result)
        elif len(self._jobs) > 1:
            console.print_scores(result)

    def print_stopped(self) -> None:
        """Print how many runs are done when the command was stopped."""
        from mnist_pipeline.system.console import err

        err().print(f"stopped: {self._num_done} of {len(self._jobs)} runs are done; the same command resumes")
