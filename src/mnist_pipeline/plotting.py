"""Figures, drawn from values that the stages return.

Every function returns a `matplotlib.figure.Figure` of its own; pyplot's global state is never touched.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system.text import printable

if TYPE_CHECKING:
    from mnist_pipeline.evaluate.evaluation import Evaluation
    from mnist_pipeline.sweep.confirm import Comparison
    from mnist_pipeline.train.fit import History

NUM_SHOWN_PREDICTIONS = 8
WIDE_RANGE = 30
"""Where the largest value is so many times the smallest, the axis is logarithmic."""

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#9aa5ad"

mpl.rcParams.update(
    {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110, "font.size": 10, "axes.titlesize": 11}
)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG file."""
    path.write_bytes(to_png(figure))


def to_png(figure: Figure) -> bytes:
    """Return `figure` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def draw_intervals(comparisons: Sequence["Comparison"]) -> Figure:
    """Draw how far candidates are from the baseline, each with its interval."""
    figure, axes = _axes(7, 1.6 + 0.4 * len(comparisons), "Difference from the baseline, with its interval")
    for row, comparison in enumerate(comparisons):
        colour = GREY if comparison.low <= 0 <= comparison.high else BLUE
        axes.plot([comparison.low, comparison.high], [row, row], color=colour, linewidth=3)
        axes.plot(comparison.mean, row, "o", color=colour)
    axes.axvline(0, color=ORANGE, linewidth=1)
    axes.set_yticks(range(len(comparisons)), [comparison.name for comparison in comparisons])
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.set_xlabel("candidate less baseline, mean over the pairs of seeds")
    return figure


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def draw_class_counts(counts: pd.DataFrame, *, name: str) -> Figure:
    """Draw the table of `data.count_classes` as stacked bars."""
    figure, axes = _axes(7, 3.6, f"{name}: images of each class")
    bottom = np.zeros(len(counts))
    for split, colour in zip(counts.columns[1:], (BLUE, GREY, ORANGE), strict=False):
        axes.bar(
            counts["class"], counts[split], bottom=bottom, color=colour, label=f"{split} ({counts[split].sum():,})"
        )
        bottom += counts[split].to_numpy()
    axes.set_xlabel("class")
    axes.set_ylabel("images")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_samples(split: Split, *, class_names: tuple[str, ...], most: int = 10) -> Figure:
    """Draw the first images of every class, one row a class."""
    rows = [split.images[split.labels == label][:most] for label in range(len(class_names))]
    height, width = split.images.shape[1:3]
    sheet = np.zeros((len(rows) * height, most * width, *split.images.shape[3:]), np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    figure, axes = _axes(6, 6.2, "The first images of each class")
    axes.imshow(sheet, cmap="gray_r")
    axes.set_xticks([])
    axes.set_yticks([height * (row + 0.5) for row in range(len(rows))], class_names)
    axes.spines[:].set_visible(False)
    return figure


def draw_learning_curves(history: "History") -> Figure:
    """Draw loss and accuracy over the epochs, in training and in validation."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [epoch.number for epoch in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", BLUE), ("validation", ORANGE)):
            scores = [getattr(epoch, split) for epoch in history]
            if all(score is not None for score in scores):
                axes.plot(epochs, [getattr(score, metric) for score in scores], "o-", color=colour, label=split)
        axes.set_title(metric)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    return figure


def draw_confusion(evaluation: "Evaluation") -> Figure:
    """Draw the confusion matrix: rows in shares of the true class, the counts written in."""
    counts = evaluation.confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _axes(6.4, 5.8, "Confusion matrix of the test split")
    # The hits would drown the mistakes on a linear scale.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(counts)), evaluation.confusion.columns)
    axes.set_yticks(range(len(counts)), evaluation.confusion.index)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.spines[:].set_visible(False)
    return figure


def draw_reliability(evaluation: "Evaluation") -> Figure:
    """Draw the reliability diagram: accuracy against confidence, and how many images each bin holds."""
    bins = evaluation.calibration
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    left, width = bins["confidence_from"], bins["confidence_to"] - bins["confidence_from"]
    upper.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
    upper.bar(left, bins["accuracy"], width, align="edge", color=BLUE, edgecolor="white", label="accuracy")
    upper.plot(
        bins["confidence"], bins["accuracy"], "o", color=ORANGE, markersize=4, label="at the bin's mean confidence"
    )
    upper.set_title(f"Reliability: expected calibration error {evaluation.calibration_error:.4f}")
    upper.set_ylabel("accuracy")
    upper.set_xlim(0, 1)
    upper.legend(loc="lower right", framealpha=0.95)
    lower.bar(left, bins["num_images"], width, align="edge", color=GREY, edgecolor="white")
    lower.set_yscale("log")
    lower.yaxis.set_minor_formatter(NullFormatter())  # between the powers of ten there is no room for them
    lower.set_ylabel("images")
    lower.set_xlabel("confidence")
    return figure


def draw_mistakes(evaluation: "Evaluation", split: Split, *, class_names: tuple[str, ...]) -> Figure:
    """Draw the images that the model got wrong while it was the surest."""
    mistakes = evaluation.mistakes
    titles = [
        f"{class_names[label]} taken for {class_names[predicted]}\n{confidence:.1%}"
        for label, predicted, confidence in zip(
            mistakes["label"], mistakes["predicted"], mistakes["confidence"], strict=True
        )
    ]
    images = split.images[mistakes["index"].to_numpy()]
    return _draw_grid(images, titles, title="The most confident mistakes", empty="no mistakes")


def draw_predictions(evaluation: "Evaluation", split: Split, *, class_names: tuple[str, ...], most: int) -> Figure:
    """Draw the first images with what the model says of them."""
    rows = evaluation.predictions.head(most)
    confidence = rows[[f"probability_{name}" for name in class_names]].max(axis=1)
    titles = [
        f"{class_names[predicted]} ({sure:.1%})" + ("" if predicted == label else f"\nis {class_names[label]}")
        for predicted, label, sure in zip(rows["predicted"], rows["label"], confidence, strict=True)
    ]
    return _draw_grid(split.images[: len(rows)], titles, title=f"The first {len(rows)} test images", empty="no images")


def _draw_grid(images: npt.NDArray[np.uint8], titles: list[str], *, title: str, empty: str) -> Figure:
    num_columns = min(len(images), max(4, math.ceil(math.sqrt(len(images))))) or 1
    num_rows = math.ceil(len(images) / num_columns) or 1
    # One sheet on one pair of axes: laying out a pair for each image takes ten times as long.
    figure, axes = _axes(1.5 * num_columns + 0.4, 1.8 * num_rows + 0.5, title if len(images) else empty)
    axes.axis("off")
    axes.set_xlim(0, num_columns)
    axes.set_ylim(num_rows, 0)
    for number, (image, caption) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(number, num_columns)
        axes.imshow(
            image,
            cmap="gray_r",
            vmin=0,
            vmax=255,
            extent=(column + 0.1, column + 0.9, row + 1, row + 0.25),
            aspect="auto",
        )
        axes.text(column + 0.5, row + 0.22, caption, ha="center", va="bottom", fontsize=8)
    return figure


def draw_against(x: "pd.Series[float]", accuracy: "pd.Series[float]", *, of: str) -> Figure:
    """Draw the accuracy of runs against a param or a time, named `of`; both are float, one value a run."""
    name = _literal(of)
    figure, axes = _axes(6.4, 4, f"{accuracy.name} against {name}")
    axes.plot(x, accuracy, "o", color=BLUE, alpha=0.6, markeredgewidth=0)
    if x.min() > 0 and x.max() / x.min() > WIDE_RANGE:
        axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_ylabel(str(accuracy.name))
    axes.grid(alpha=0.3)
    return figure


def draw_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the learning curves of runs over each other: tables with epoch and the metrics, by the names of the runs."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for (name, history), colour in zip(histories.items(), (BLUE, ORANGE), strict=False):
            for split, style in (("train", "--"), ("validation", "o-")):
                if f"{split}/{metric}" in history:
                    values = history[f"{split}/{metric}"]
                    axes.plot(history["epoch"], values, style, color=colour, label=f"{name} {split}", markersize=4)
        axes.set_title(metric)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_disagreements(images: npt.NDArray[np.uint8], captions: list[str]) -> Figure:
    """Draw images uint8 (n, height, width) that two models see differently, each with what they say."""
    return _draw_grid(images, list(map(_literal, captions)), title="Images on which the two disagree", empty="no image")


def _literal(text: str) -> str:
    """Return text that others wrote as matplotlib draws it letter by letter; between dollars it would see a formula."""
    return printable(text, keep="\n").replace("$", "\\$")
