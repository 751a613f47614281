"""The crew: workers, each driven by a thread that tells the story of one job after the other, from top to bottom."""

import threading
from collections.abc import Callable, Generator

from mnist_pipeline.data.dataset import Found
from mnist_pipeline.sweep.executors.worker import Task, Worker, WorkerDiedError
from mnist_pipeline.sweep.failure import Cause, HinderedError, TrainingFailedError
from mnist_pipeline.tracking.record import Point

MAX_DEATHS = 2
"""Workers that one training may cost."""


class Stop:
    """Whether the sweep is to stop, and as what: set by a signal or an error, asked for by every training."""

    def __init__(self) -> None:
        self._reason: BaseException | None = None

    def set(self, reason: BaseException) -> None:
        """Have every training end with `reason` after its epoch."""
        self._reason = reason

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._reason is not None

    def check(self) -> None:
        """Raise the reason, where there is one."""
        if self._reason is not None:
            raise self._reason


class Member:
    """One place in the crew: a worker, begun when it is first needed, and replaced when it dies."""

    def __init__(self, found: Found, *, index: int) -> None:
        self.index = index
        self._found = found
        self._worker: Worker | None = None

    def train(self, task: Task, *, after: int) -> Generator[Point]:
        """Yield every epoch of a training that comes after the epoch `after`.

        Raises:
            TrainingFailedError: The training diverged, raised an error, or crashed too many workers.
            HinderedError: What surrounds it kept it from its end, or killed too many workers.
        """
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
                # A new one resumes from the checkpoint.
                self.stop()
                num_deaths += 1
                if num_deaths == MAX_DEATHS:
                    is_hindered = error.failure.cause is Cause.surroundings
                    raise (HinderedError if is_hindered else TrainingFailedError)(error.failure) from error

    def stop(self) -> None:
        """End the worker, whatever it does."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


Job = Callable[[Member], None]


class Crew:
    """Runs jobs, as many at once as there are members."""

    def __init__(self, found: Found, *, num_workers: int, stop: Stop) -> None:
        self._members = [Member(found, index=index) for index in range(num_workers)]
        self._errors: list[BaseException] = []
        self._stop = stop

    def run(self, next_job: Callable[[], Job | None]) -> None:
        """Run jobs until `next_job` has none; every member asks for its next the moment it is free.

        What a job raises stops the others after their epochs, and is raised here.
        """

        def serve(member: Member) -> None:
            try:
                while not self._errors and (job := next_job()) is not None:
                    job(member)
            except BaseException as error:
                self._errors.append(error)
                if not self._stop.is_set:
                    self._stop.set(error)

        threads = [threading.Thread(target=serve, args=(member,), daemon=True) for member in self._members]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # with a timeout, so that the main thread hears of signals
                thread.join(0.2)
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """End all workers."""
        for member in self._members:
            member.stop()
