"""Figures of a training."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from mnist_pipeline.train.epochs import History
from mnist_pipeline.plotting import BLUE, ORANGE


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
