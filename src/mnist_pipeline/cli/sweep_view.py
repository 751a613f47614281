"""The terminal output of a sweep: its progress and its result."""

import math
import threading
import time
from types import TracebackType
from typing import Self

from mnist_pipeline.cli.worker_bars import WorkerBars
from mnist_pipeline.reports.configurations import short_names
from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.terminal import print_table
from mnist_pipeline.sweep.artifacts import tabulate_trials
from mnist_pipeline.sweep.confirm import POWER
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
        self._bars = WorkerBars()
        self._stage = ""
        self._num_done = self._num_begun_with = self._num_total = 0
        self._best: float | None = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def begin(self, *, stage: str, num_done: int, num_total: int, best: float | None = None) -> None:
        """Start a stage and its counts."""
        self._stage, self._num_done, self._num_begun_with, self._num_total = stage, num_done, num_done, num_total
        self._best, self._began = best, time.perf_counter()
        self._bars.begin(stage, num_done=num_done, num_total=num_total)
        err().print(f"{stage}: {num_done} of {num_total} are done; by {self._config.metric}")

    def wait(self, what: str | None) -> None:
        """Show what the sweep waits for."""
        with self._lock:
            self._bars.wait(what)

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        """Show the epoch in the worker's bar."""
        with self._lock:
            value = point.metrics[self._config.metric]
            self._bars.train(executor, name=name, epoch=point.number, num_epochs=num_epochs, note=f"{value:.4f}")

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
            self._bars.count(self._num_done, note=f"{_describe_sec(left)} left")

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
                f"{comparison.mean:+.5f}  ({comparison.low:+.5f} to {comparison.high:+.5f})  "
                f"{comparison.outcome.value}, by {comparison.num_pairs} pairs of seeds"
            )
        lines["confidence"] = f"{result.verdict.confidence:.0%}, of all intervals of all looks together"
        if result.verdict.detectable_gain is not None:
            lines["power"] = f"{POWER:.0%} to find a difference of about {result.verdict.detectable_gain:.5f}"
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
