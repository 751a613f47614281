"""What carries out a training: the seam between a sweep and the machines that it trains on."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mnist_pipeline.config.sections import Config
from mnist_pipeline.tracking.record import Point


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        config: Its data, model and train sections define the training.
        folder: The folder of its checkpoints.
    """

    config: Config
    folder: Path


class Executor(Protocol):
    """A place that carries out one training at a time.

    Attributes:
        index: Of the executor among those of the sweep, counted from 0.
    """

    index: int

    def train(self, task: Task, *, after: int) -> Generator[Point]:
        """Yield the metrics of every epoch after the epoch `after`. Close the generator to stop the training.

        Raises:
            TrainingFailedError: The training diverged, raised an error, or crashed too many workers.
            HinderedError: Something outside the training stopped it, or killed too many workers.
        """

    def stop(self) -> None:
        """End whatever is running."""
