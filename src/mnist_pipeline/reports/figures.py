"""Figures of comparisons between runs, as PNG files."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_pipeline.plotting import BLUE, ORANGE, draw_image_grid, literal, make_axes, to_png

WIDE_RANGE = 30
"""If the largest value is more than this many times the smallest, the axis is logarithmic."""


def draw_against(x: "pd.Series[float]", accuracy: "pd.Series[float]", *, of: str) -> bytes:
    """Draw the accuracy of runs against a param or a time, named `of`; both are float, one value per run."""
    name = literal(of)
    figure, axes = make_axes(6.4, 4, f"{accuracy.name} against {name}")
    axes.plot(x, accuracy, "o", color=BLUE, alpha=0.6, markeredgewidth=0)
    if x.min() > 0 and x.max() / x.min() > WIDE_RANGE:
        axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_ylabel(str(accuracy.name))
    axes.grid(alpha=0.3)
    return to_png(figure)


def draw_curves(histories: Mapping[str, pd.DataFrame]) -> bytes:
    """Draw the learning curves of several runs: tables with epoch and metrics, by the names of the runs."""
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
    return to_png(figure)


def draw_disagreements(images: npt.NDArray[np.uint8], captions: list[str]) -> bytes:
    """Draw images uint8 (n, height, width) on which two models disagree, each with their predictions."""
    title = "Images on which they disagree"
    return to_png(draw_image_grid(images, list(map(literal, captions)), title=title, empty="no image"))
