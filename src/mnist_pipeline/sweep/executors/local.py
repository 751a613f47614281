"""The executor of this machine: a worker process that is started when it is first needed and replaced when it dies."""

from collections.abc import Generator

from mnist_pipeline.data.dataset import Found
from mnist_pipeline.sweep.executors.executor import Executor, Task
from mnist_pipeline.sweep.executors.worker import Worker, WorkerDiedError
from mnist_pipeline.sweep.failure import Cause, HinderedError, TrainingFailedError
from mnist_pipeline.tracking.record import Point

MAX_DEATHS = 2
"""Workers that one training may cost."""


class LocalExecutor:
    """Trains in a process of this machine; see `Executor`."""

    def __init__(self, found: Found, *, index: int) -> None:
        self.index = index
        self._found = found
        self._worker: Worker | None = None

    def train(self, task: Task, *, after: int) -> Generator[Point]:
        """Yield the epochs; a worker that died is replaced, and the new one resumes from the checkpoint."""
        num_deaths = 0
        while True:
            if self._worker is None:
                self._worker = Worker(self._found)
            epochs = self._worker.train(task)
            try:
                for point in epochs:
                    if point.number > after:
                        yield point
                        after = point.number
                return
            except GeneratorExit:
                try:
                    epochs.close()
                except WorkerDiedError:
                    self.stop()
                raise
            except WorkerDiedError as error:
                self.stop()
                num_deaths += 1
                if num_deaths == MAX_DEATHS:
                    is_hindered = error.failure.cause is Cause.surroundings
                    raise (HinderedError if is_hindered else TrainingFailedError)(error.failure) from error

    def stop(self) -> None:
        """Kill the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def make_executors(found: Found, *, num_executors: int) -> list[Executor]:
    """Return executors of this machine, which train on the data `found`."""
    return [LocalExecutor(found, index=index) for index in range(num_executors)]
