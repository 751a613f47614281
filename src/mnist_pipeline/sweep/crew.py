"""The crew: workers, each driven by a thread that tells the story of one job after the other, from top to bottom."""

import threading
from collections.abc import Callable, Generator

from mnist_pipeline.data import Found
from mnist_pipeline.sweep.worker import Task, Worker, WorkerDiedError
from mnist_pipeline.tracking import Point

MAX_DEATHS = 2
"""Workers that one training may cost before it counts as failed."""


class Member:
    """One place in the crew: a worker, begun when it is first needed, and replaced when it dies."""

    def __init__(self, found: Found, *, index: int) -> None:
        self.index = index
        self._found = found
        self._worker: Worker | None = None

    def train(self, task: Task, *, after: int) -> Generator[Point]:
        """Yield every epoch of a training that comes after the epoch `after`.

        Raises:
            TrainingFailedError: The training raised an error.
            WorkerDiedError: It cost too many workers.
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
            except WorkerDiedError:
                # A new one goes on from the checkpoint. A training that kills every worker is the worker's death.
                self.stop()
                num_deaths += 1
                if num_deaths == MAX_DEATHS:
                    raise

    def stop(self) -> None:
        """End the worker, whatever it does."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


Job = Callable[[Member], None]


class Crew:
    """Runs jobs, as many at once as there are members."""

    def __init__(self, found: Found, *, num_workers: int) -> None:
        self._members = [Member(found, index=index) for index in range(num_workers)]
        self._errors: list[BaseException] = []

    def run(self, next_job: Callable[[], Job | None]) -> None:
        """Run jobs until `next_job` has none; every member asks for its next the moment it is free.

        What a job raises ends the others' as soon as they ask for the next, and is raised here.
        """

        def serve(member: Member) -> None:
            try:
                while not self._errors and (job := next_job()) is not None:
                    job(member)
            except BaseException as error:
                self._errors.append(error)

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
