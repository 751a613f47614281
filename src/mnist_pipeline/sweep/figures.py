"""Figures of a sweep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mnist_pipeline.plotting import BLUE, GREY, ORANGE, make_axes

if TYPE_CHECKING:
    from mnist_pipeline.sweep.confirm import Comparison

_PALE = 0.4  # of matplotlib's blues, counted from white


def draw_intervals(comparisons: Sequence["Comparison"]) -> Figure:
    """Draw the difference of each candidate from the baseline, with its interval."""
    figure, axes = make_axes(7, 1.6 + 0.4 * len(comparisons), "Difference from the baseline, with its interval")
    for row, comparison in enumerate(comparisons):
        colour = GREY if comparison.low <= 0 <= comparison.high else BLUE
        axes.plot([comparison.low, comparison.high], [row, row], color=colour, linewidth=3)
        axes.plot(comparison.mean, row, "o", color=colour)
    axes.axvline(0, color=ORANGE, linewidth=1)
    axes.set_yticks(range(len(comparisons)), [comparison.name for comparison in comparisons])
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.set_xlabel("candidate less baseline, mean over the pairs of seeds")
    return figure


def darken_trials(axes: Axes) -> None:
    """Draw the worst trials of Optuna's plots darker than their ground, on which the palest blue cannot be seen."""
    for drawn in axes.collections:
        if isinstance(drawn, LineCollection | PathCollection) and drawn.get_array() is not None:
            blues = drawn.get_cmap()
            ends = (0.0, 1 - _PALE) if blues.name.endswith("_r") else (_PALE, 1.0)
            drawn.set_cmap(ListedColormap(blues(np.linspace(*ends, 256))))
