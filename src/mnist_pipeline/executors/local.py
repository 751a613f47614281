"""The places for workers on this machine."""

from mnist_pipeline.executors.executor import Executor
from mnist_pipeline.executors.forked import ForkedWorker


class LocalPlaces:
    """As many places as there are to be workers."""

    def __init__(self, *, num_workers: int) -> None:
        self._num_workers = num_workers

    def count(self) -> int:
        """Return how many executors there are to be."""
        return self._num_workers

    def make(self, index: int) -> Executor:
        """Return an executor of this machine."""
        return Executor(lambda goes_on: ForkedWorker(), index=index, wait_sec=0)

    def close(self) -> None:
        """Nothing is held."""
