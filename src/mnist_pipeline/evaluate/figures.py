"""Figures of an evaluation: confusion, calibration, mistakes and predictions."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.plotting import BLUE, GREY, ORANGE, draw_image_grid, literal, make_axes, slant

if TYPE_CHECKING:
    from mnist_pipeline.evaluate.evaluation import Evaluation


def draw_confusion(evaluation: "Evaluation") -> Figure:
    """Draw the confusion matrix: rows in shares of the true class, the counts written in."""
    counts = evaluation.confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(40, max(5.8, 0.4 * len(counts)))
    figure, axes = make_axes(side + 0.6, side, "Confusion matrix of the test split")
    # On a linear scale, the correct predictions would hide the mistakes.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(counts)), list(map(literal, evaluation.confusion.columns)))
    axes.set_yticks(range(len(counts)), list(map(literal, evaluation.confusion.index)))
    slant(axes, list(evaluation.confusion.columns))
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
    lower.yaxis.set_minor_formatter(NullFormatter())  # there is no room for labels between the powers of ten
    lower.set_ylabel("images")
    lower.set_xlabel("confidence")
    return figure


def draw_mistakes(evaluation: "Evaluation", split: Split, *, class_names: tuple[str, ...]) -> Figure:
    """Draw the most confident mistakes."""
    mistakes = evaluation.mistakes
    titles = [
        f"{class_names[label]} taken for {class_names[predicted]}\n{confidence:.1%}"
        for label, predicted, confidence in zip(
            mistakes["label"], mistakes["predicted"], mistakes["confidence"], strict=True
        )
    ]
    images = split.images[mistakes["index"].to_numpy()]
    return draw_image_grid(images, list(map(literal, titles)), title="The most confident mistakes", empty="no mistakes")


def draw_predictions(evaluation: "Evaluation", split: Split, *, class_names: tuple[str, ...], most: int) -> Figure:
    """Draw the first images with the model's predictions."""
    rows = evaluation.predictions.head(most)
    confidence = rows[[f"probability_{name}" for name in class_names]].max(axis=1)
    titles = [
        f"{class_names[predicted]} ({sure:.1%})" + ("" if predicted == label else f"\nis {class_names[label]}")
        for predicted, label, sure in zip(rows["predicted"], rows["label"], confidence, strict=True)
    ]
    return draw_image_grid(
        split.images[: len(rows)],
        list(map(literal, titles)),
        title=f"The first {len(rows)} test images",
        empty="no images",
    )
