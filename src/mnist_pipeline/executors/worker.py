"""What a worker is: a process, here or on another machine, that carries out one training after the other."""

from collections.abc import Callable, Generator
from typing import Protocol

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.failure import Failure
from mnist_pipeline.tracking.record import Point

Reported = tuple[Point, bytes | None]
"""An epoch, and the encoded checkpoint that was made after it, if one was."""


class WorkerDiedError(Exception):
    """A worker died.

    Attributes:
        failure: Why, as far as that is known.
        is_lost: Whether its machine is lost, which says nothing about the training.
    """

    def __init__(self, failure: Failure, *, is_lost: bool = False) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.is_lost = is_lost


class Worker(Protocol):
    """A worker that is ready to train."""

    def begin(self, config: Config, found: Found, start: bytes | None) -> None:
        """Let it start a training. It keeps the data set `found` for its next one.

        Args:
            config: Of the training.
            found: Its data set.
            start: The encoded checkpoint to resume from.

        Raises:
            WorkerDiedError: The worker died.
        """

    def follow(self) -> Generator[Reported]:
        """Yield every epoch of the training that has begun, first those in its checkpoint. To stop it, close this.

        Raises:
            TrainingFailedError, HinderedError: The training did not end. The worker is ready for another.
            WorkerDiedError: The worker died.
        """

    def stop(self) -> None:
        """End the worker at once."""


StartWorker = Callable[[Callable[[], bool]], Worker | None]
"""Starts a worker. It is given a function that says whether to go on waiting for one, and returns None if not.

It raises HinderedError if no worker can be started.
"""
