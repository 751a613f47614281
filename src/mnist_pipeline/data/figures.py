"""Figures of a data set: images per class, and examples."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.plotting import BLUE, GREY, ORANGE, literal, make_axes, slant


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
    height, width = split.images.shape[1:3]
    sheet = np.zeros((len(rows) * height, most * width, *split.images.shape[3:]), np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    figure, axes = make_axes(6, min(60, 0.2 + 0.6 * len(rows)), "The first images of each class")
    axes.imshow(sheet, cmap="gray_r")
    axes.set_xticks([])
    axes.set_yticks([height * (row + 0.5) for row in range(len(rows))], list(map(literal, class_names)))
    axes.spines[:].set_visible(False)
    return figure
