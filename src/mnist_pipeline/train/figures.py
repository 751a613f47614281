"""Figures of a training."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_pipeline.config.sections import AugmentConfig
from mnist_pipeline.plotting import BLUE, GREY, ORANGE, draw_sheet

if TYPE_CHECKING:
    from mnist_pipeline.data.dataset import Split
    from mnist_pipeline.train.epochs import History

NUM_VARIANTS = 9
_MAX_CLASSES = 20


def draw_learning_curves(history: "History", *, kept: int | None = None) -> Figure:
    """Draw loss and accuracy over the epochs, in training and in validation, and mark the epoch `kept` if it is not the
    last.
    """
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
        if kept is not None and kept != len(history):
            axes.axvline(kept, color=GREY, linestyle="--", label="kept")
        axes.legend(frameon=False)
    return figure


def draw_augmented(split: "Split", config: AugmentConfig, *, class_names: tuple[str, ...], seed: int) -> Figure:
    """Draw the first image of each class, at most 20, and variants of it as training gets them."""
    import tensorflow as tf  # figures are drawn without it, but for this one

    from mnist_pipeline.train.augmentation import augment

    labels = [label for label in range(len(class_names)) if (split.labels == label).any()][:_MAX_CLASSES]
    first = np.stack([split.images[np.argmax(split.labels == label)] for label in labels])
    variants = [
        augment(tf.constant(first), config, tf.constant([seed, number], tf.int64)) for number in range(NUM_VARIANTS)
    ]
    rows = list(np.stack([first, *(np.asarray(one) for one in variants)], axis=1))
    names = [class_names[label] for label in labels]
    return draw_sheet(
        rows, names=names, columns=len(rows[0]), title="The first image of each class, and as it is changed"
    )
