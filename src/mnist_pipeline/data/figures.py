"""Figures of a data set: images per class, and examples."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.plotting import BLUE, GREY, ORANGE, draw_sheet, literal, make_axes, slant


def draw_class_counts(counts: pd.DataFrame, *, name: str) -> Figure:
    """Draw the table of `data.count_classes` as stacked bars."""
    figure, axes = make_axes(min(40, max(7, 0.3 * len(counts))), 3.6, f"{literal(name)}: images of each class")
    bottom = np.zeros(len(counts))
    for split, colour in zip(counts.columns[1:], (BLUE, GREY, ORANGE), strict=False):
        names = list(map(literal, counts["class"]))
        axes.bar(names, counts[split], bottom=bottom, color=colour, label=f"{split} ({counts[split].sum():,})")
        bottom += counts[split].to_numpy()
    axes.set_xlabel("class")
    slant(axes, list(counts["class"]))
    axes.set_ylabel("images")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_samples(split: Split, *, class_names: tuple[str, ...], most: int = 10) -> Figure:
    """Draw the first images of every class, one row per class."""
    rows = [split.images[split.labels == label][:most] for label in range(len(class_names))]
    return draw_sheet(rows, names=class_names, columns=most, title="The first images of each class")
