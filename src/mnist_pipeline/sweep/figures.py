"""Figures of a confirmation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from mnist_pipeline.sweep.confirm import Comparison
from mnist_pipeline.plotting import BLUE, GREY, ORANGE, make_axes


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
