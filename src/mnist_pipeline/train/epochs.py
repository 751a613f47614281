"""The result of an epoch, and the state that a training resumes from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_pipeline.model.score import Score


@dataclass(frozen=True)
class Epoch:
    """The result of one pass over the training images.

    Attributes:
        number: Counted from 1.
        train: Means over the epoch's steps, each weighted by its images; dropout on, weights moving.
        validation: At the end of the epoch, dropout off; None without a validation split.
        train_sec: Seconds spent in the compiled epoch.
        images_per_sec: Training images per second of that time.
        ended_ms: When it ended, in milliseconds of Unix time: the time stamp of its metric points.
    """

    number: int
    train: Score
    validation: Score | None
    train_sec: float
    images_per_sec: float
    ended_ms: int


History = list[Epoch]


@dataclass(frozen=True)
class TrainState:
    """The state that a training resumes from after an epoch; the rest follows from the configuration and the data.

    Attributes:
        history: Every epoch so far.
        arrays: The values of the model's variables, including the dropout generator, then of the optimiser's.
        kept: The values of the model's variables after the best epoch; empty where the last epoch's are kept.
    """

    history: tuple[Epoch, ...]
    arrays: tuple[npt.NDArray[np.generic], ...]
    kept: tuple[npt.NDArray[np.generic], ...] = ()
