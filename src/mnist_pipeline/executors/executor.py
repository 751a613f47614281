"""An executor: one place among those of a command, where a worker carries out one training after the other."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.failure import RESUME, Cause, Failure, HinderedError
from mnist_pipeline.executors.worker import StartWorker, Worker, WorkerDiedError
from mnist_pipeline.pipeline.checkpoints import Checkpoints, NotSavedError
from mnist_pipeline.tracking.record import Point
from mnist_pipeline.tracking.tracker import PausedError

MAX_DEATHS = 2
"""Workers that one training may cost; those that are lost with their machine do not count."""


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        config: Its data, model and train sections define the training.
        found: Its data set.
        checkpoints: What it is resumed from, and where its checkpoints are written.
    """

    config: Config
    found: Found
    checkpoints: Checkpoints


class NoWorkerError(PausedError):
    """The worker of a training was lost, and there is no other: another executor can resume the training."""


class Executor:
    """A place for one worker, which is started when it is first needed and replaced when it dies.

    Args:
        start: Starts a worker.
        index: Of the executor among those of the command, counted from 0.
        wait_sec: How long a training waits for a worker in place of one that died.
    """

    def __init__(self, start: StartWorker, *, index: int, wait_sec: float) -> None:
        self.index = index
        self._start = start
        self._wait_sec = wait_sec
        self._worker: Worker | None = None
        self._begun: Task | None = None  # whose epochs nobody has asked for yet

    @property
    def is_ready(self) -> bool:
        """Whether it has a worker."""
        return self._worker is not None

    def prepare(self, goes_on: Callable[[], bool]) -> bool:
        """Get a worker; return False if there is none and `goes_on` says to wait no longer.

        Raises:
            HinderedError: No worker can be started.
        """
        if self._worker is None:
            self._worker = self._start(goes_on)
        return self._worker is not None

    def begin(self, task: Task) -> None:
        """Let its worker, if it has one, start on the task that `train` is called with next."""
        if self._worker is not None:
            with contextlib.suppress(WorkerDiedError):  # then `train` finds it dead
                self._begin(self._worker, task)
                self._begun = task

    def train(self, task: Task, *, after: int) -> Generator[Point]:
        """Yield the metrics of every epoch after the epoch `after`. Close the generator to stop the training.

        A checkpoint is written before its epoch is yielded. A worker that died is replaced, and the next one resumes
        from the last checkpoint.

        Raises:
            TrainingFailedError: The training diverged, raised an error, or crashed too many workers.
            HinderedError: Something outside the training stopped it, or killed too many workers.
            NoWorkerError: Its worker died, and there is no other.
        """
        num_deaths = 0
        while True:
            worker = self._require_worker()
            epochs = worker.follow()
            try:
                if self._begun is not task:
                    self._begin(worker, task)
                self._begun = None
                for point, checkpoint in epochs:
                    if checkpoint is not None:
                        _save(task.checkpoints, point, checkpoint)
                    if point.number > after:
                        yield point
                        after = point.number
                return
            except (GeneratorExit, HinderedError):  # the training is over, or has no place for its checkpoint
                try:
                    epochs.close()
                except WorkerDiedError:  # not to be resumed any more
                    self.stop()
                raise
            except WorkerDiedError as error:
                self.stop()
                num_deaths += not error.is_lost
                if num_deaths == MAX_DEATHS:
                    raise error.failure.to_error() from error

    def _begin(self, worker: Worker, task: Task) -> None:
        assert self._begun is None, "the worker still trains a task that nobody has followed"
        worker.begin(task.config, task.found, task.checkpoints.load_encoded())

    def _require_worker(self) -> Worker:
        until = time.monotonic() + self._wait_sec
        if not self.prepare(lambda: time.monotonic() < until):
            raise NoWorkerError("its worker was lost; another one resumes it")
        assert self._worker is not None
        return self._worker

    def stop(self) -> None:
        """End the worker at once."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = self._begun = None


def _save(checkpoints: Checkpoints, point: Point, encoded: bytes) -> None:
    try:
        checkpoints.save_encoded(point.number, encoded)
    except NotSavedError as error:
        failure = Failure(Cause.surroundings, error.reason, f"free some space there and {RESUME}")
        raise HinderedError(failure) from error
