"""TODO."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_pipeline.model.score import Score


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Attributes:
        number: Counted from 1.
        train: Means over the epoch's steps, each weighted by its images; dropout on, weights moving.
        validation: At the end of the epoch, dropout off; None without a validation split.
        train_sec: Seconds spent in the compiled epoch.
        images_per_sec: Training images a second in it.
        ended_ms: When it ended, in milliseconds of Unix time: the time stamp of its metric points.
    """

    number: int
    train: Score
    validation: Score | None
    train_sec: float
    images_per_sec: float
    ended_ms: int

    def metrics(self) -> dict[str, float]:
        """Return the figures under the names that MLflow knows them by."""
        named = {"train": self.train, "validation": self.validation}
        scores = {
            f"{split}/{metric}": getattr(found, metric)
            for split, found in named.items()
            if found is not None
            for metric in ("loss", "accuracy")
        }
        return {**scores, "time/epoch_sec": self.train_sec}


History = list[Epoch]


@dataclass(frozen=True)
class TrainState:
    """All that training goes on from after an epoch; the rest follows from the configuration and the data.

    Attributes:
        history: Every epoch so far.
        arrays: The values of the model's variables, dropout's generator among them, then those of the optimiser's.
    """

    history: tuple[Epoch, ...]
    arrays: tuple[npt.NDArray[np.generic], ...]
