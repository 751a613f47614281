"""The terminal output of a run and of predictions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.terminal import print_table
from mnist_pipeline.system.console import err, out, print_fields
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking.record import NUM_SHOWN_PREDICTIONS

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.run import RunResult
    from mnist_pipeline.serving.champion import Champion
    from mnist_pipeline.serving.predict import Predictions
    from mnist_pipeline.train.epochs import Epoch


UNSURE = 0.8
"""A lower probability of the predicted class is marked."""


class EpochProgress:
    """Prints a line for every epoch as it ends; in a terminal a bar below them shows how far the training is."""

    def __init__(self, num_epochs: int) -> None:
        self._num_epochs = num_epochs
        self._started = time.perf_counter()
        self._num_shown = 0
        self._bar = Progress(
            TextColumn("train    "),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=err(),
            disable=not err().is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=num_epochs)
        self._last = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, epoch: "Epoch") -> None:
        """Show `epoch`."""
        self._last = epoch.number
        self._num_shown += 1  # not the epoch's number: a resumed run starts in the middle
        left = (time.perf_counter() - self._started) / self._num_shown * (self._num_epochs - epoch.number)
        ending = "" if err().is_terminal else f"  {left:.0f} s left"
        err().print(
            f"train     epoch {epoch.number}/{self._num_epochs}  {describe_epoch(epoch)}{ending}", soft_wrap=True
        )
        self._bar.update(self._task, completed=epoch.number, refresh=True)

    def print_stopped(self) -> None:
        """Print how far the training came when it was stopped, and how it goes on."""
        where = f"after epoch {self._last} of {self._num_epochs}" if self._last else "before the end of an epoch"
        err().print(f"stopped   {where}; the same command resumes", soft_wrap=True)


def describe_epoch(epoch: "Epoch") -> str:
    """Return an epoch's figures in one line."""
    parts = [f"loss {epoch.train.loss:.4f}", f"accuracy {epoch.train.accuracy:.4f}"]
    if epoch.validation:
        parts += [f"validation loss {epoch.validation.loss:.4f}", f"accuracy {epoch.validation.accuracy:.4f}"]
    return "  ".join([*parts, f"{epoch.images_per_sec:,.0f} images/s"])


def print_result(result: "RunResult") -> None:
    """Print the first test predictions, the scores, the address of the run and the next step."""
    _print_first_predictions(result)
    print_scores(result)
    another = "model.hidden_width=256" if "hidden_width" in result.request.config.model.arguments else "train.seed=1"
    print_fields({"next": f"{command('ui')} shows the run; {command('train', another)} trains another"})


def _print_first_predictions(result: "RunResult") -> None:
    class_names = result.request.found.class_names
    rows = []
    for row in result.predictions.head(NUM_SHOWN_PREDICTIONS).to_dict("records"):
        label, predicted = class_names[row["label"]], class_names[row["predicted"]]
        mark = "" if label == predicted else "wrong"
        rows.append((str(row["index"]), label, predicted, f"{row[f'probability_{predicted}']:.4f}", mark))
    table = Table(
        f"The first {len(rows)} test predictions",
        ("image", "label", "predicted", "probability", ""),
        tuple(rows),
        (True, True, True, True, False),
    )
    out().print(table.caption, style="bold")
    print_table(table)


def print_scores(result: "RunResult") -> None:
    """Print the scores and the address of the run."""
    metrics = result.metrics
    validation = metrics.get("validation/accuracy")
    kept = metrics.get("kept/epoch")
    lines = {
        "test accuracy": f"{metrics['test/accuracy']:.4f}",
        "test loss": f"{metrics['test/loss']:.4f}",
        **({} if validation is None else {"validation accuracy": f"{validation:.4f}"}),
        **({} if kept is None else {"kept epoch": f"{kept:.0f}"}),
        "calibration error": f"{metrics['test/calibration_error']:.4f}",
        "training": f"{metrics['time/train_sec']:.1f} s",
        "result digest": result.digest[:32],
        "data": result.request.found.name,
        "run": f"{result.name} ({result.run_id})",
        "address": result.address,
    }
    print_fields(lines)


@dataclass(frozen=True)
class Job:
    """One of the runs of a --multirun.

    Attributes:
        number: Counted from 1.
        total: Of the runs.
        own: The overrides that not all of them have.
    """

    number: int
    total: int
    own: tuple[str, ...]


def print_job(job: Job) -> None:
    """Print which run of a --multirun begins."""
    err().print()
    err().print(f"run {job.number} of {job.total}  {' '.join(job.own)}".rstrip(), style="bold", soft_wrap=True)


def print_jobs(jobs: Sequence[tuple[Job, "RunResult | None"]]) -> None:
    """Print what became of each run of a --multirun, where None is one that failed, and the next step."""
    headings = ("run", "name", "given", "validation", "test", "train s")
    rows = []
    for job, result in jobs:
        metrics = {} if result is None else result.metrics
        accuracies = (metrics.get(key) for key in ("validation/accuracy", "test/accuracy"))
        shown = ("" if accuracy is None else f"{accuracy:.4f}" for accuracy in accuracies)
        name, seconds = (result.name, f"{metrics['time/train_sec']:.1f}") if result else ("failed", "")
        rows.append((str(job.number), name, " ".join(job.own), *shown, seconds))
    out().print()
    out().print(f"{len(rows)} runs", style="bold")
    print_table(Table("", headings, tuple(rows), (True, False, False, True, True, True)), most_rows=None)
    print_fields({"next": f"{command('compare')} shows which is best; {command('ui')} shows them all"})


def print_skipped(name: str, reason: str) -> None:
    """Report a file that cannot be used, as soon as it is found."""
    err().print(f"skipped {name}: {reason}", style="yellow", soft_wrap=True)


def print_predictions(result: "Predictions", champion: "Champion", *, output: Path | None) -> None:
    """Print the first predictions, their number, and the file with the others."""
    if result.first:
        rows = tuple(
            (row["image"], row["predicted"], f"{row['probability']:.4f}", "unsure" * (row["probability"] < UNSURE))
            for row in result.first
        )
        headings = ("image", "predicted", "probability", "")
        print_table(Table("Predictions", headings, rows, (False, True, True, False)), most_rows=None)
    num_hidden = result.num_images - len(result.first)
    if num_hidden:
        out().print(f"and {num_hidden:,} more{'' if output else '; --output FILE.csv has them all'}")
    lines = {"images": f"{result.num_images:,}", "model": f"version {champion.version} of {champion.name}"}
    written = {"written": str(output)} if output and result.num_images else {}
    print_fields({**lines, **written})
