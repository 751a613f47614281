"""The terminal output of a run and of predictions."""

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_pipeline.evaluate.figures import NUM_SHOWN_PREDICTIONS
from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.terminal import print_table
from mnist_pipeline.system.console import err, out, print_fields

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.run import RunResult
    from mnist_pipeline.serving.champion import Champion
    from mnist_pipeline.serving.predict import Predictions
    from mnist_pipeline.train.epochs import Epoch


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

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, epoch: "Epoch") -> None:
        """Show `epoch`."""
        self._num_shown += 1  # not the epoch's number: a resumed run starts in the middle
        left = (time.perf_counter() - self._started) / self._num_shown * (self._num_epochs - epoch.number)
        ending = "" if err().is_terminal else f"  {left:.0f} s left"
        err().print(
            f"train     epoch {epoch.number}/{self._num_epochs}  {describe_epoch(epoch)}{ending}", soft_wrap=True
        )
        self._bar.update(self._task, completed=epoch.number, refresh=True)


def describe_epoch(epoch: "Epoch") -> str:
    """Return an epoch's figures in one line."""
    parts = [f"loss {epoch.train.loss:.4f}", f"accuracy {epoch.train.accuracy:.4f}"]
    if epoch.validation:
        parts += [f"validation loss {epoch.validation.loss:.4f}", f"accuracy {epoch.validation.accuracy:.4f}"]
    return "  ".join([*parts, f"{epoch.images_per_sec:,.0f} images/s"])


def print_result(result: "RunResult") -> None:
    """Print the first test predictions, the scores, the address of the run and the next step."""
    class_names = result.dataset.class_names
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
    metrics = result.metrics
    validation = metrics.get("validation/accuracy")
    kept = metrics.get("kept/epoch")
    another = "model.hidden_width=256" if "hidden_width" in result.config.model.arguments else "train.seed=1"
    lines = {
        "test accuracy": f"{metrics['test/accuracy']:.4f}",
        "test loss": f"{metrics['test/loss']:.4f}",
        **({} if validation is None else {"validation accuracy": f"{validation:.4f}"}),
        **({} if kept is None else {"kept epoch": f"{kept:.0f}"}),
        "calibration error": f"{metrics['test/calibration_error']:.4f}",
        "training": f"{metrics['time/train_sec']:.1f} s",
        "result digest": result.digest[:32],
        "data": result.dataset.name,
        "run": f"{result.name} ({result.run_id})",
        "address": result.address,
        "next": f'make ui shows the run; make train ARGS="{another}" trains another',
    }
    print_fields(lines)


def print_skipped(name: str, reason: str) -> None:
    """Report a file that cannot be used, as soon as it is found."""
    err().print(f"skipped {name}: {reason}", style="yellow", soft_wrap=True)


def print_predictions(result: "Predictions", champion: "Champion", *, output: Path | None) -> None:
    """Print the first predictions, their number, and the file with the others."""
    if result.first:
        rows = tuple((row["image"], row["predicted"], f"{row['probability']:.4f}") for row in result.first)
        headings = ("image", "predicted", "probability")
        print_table(Table("Predictions", headings, rows, (False, True, True)), most_rows=None)
    num_hidden = result.num_images - len(result.first)
    if num_hidden:
        out().print(f"and {num_hidden:,} more{'' if output else '; --output FILE.csv has them all'}")
    lines = {"images": f"{result.num_images:,}", "model": f"version {champion.version} of {champion.name}"}
    written = {"written": str(output)} if output and result.num_images else {}
    print_fields({**lines, **written})
