"""A pool of executors, each driven by a thread that runs one job after the other."""

import threading
from collections.abc import Callable, Sequence

from mnist_pipeline.sweep.executors.executor import Executor

Job = Callable[[Executor], None]


class StopRequest:
    """A request to stop the sweep, made by a signal or an error. Every training checks it after each epoch."""

    def __init__(self) -> None:
        self._reason: BaseException | None = None

    def set(self, reason: BaseException) -> None:
        """Make every training end with `reason` after its current epoch."""
        self._reason = reason

    @property
    def is_set(self) -> bool:
        """Whether the request was made."""
        return self._reason is not None

    def check(self) -> None:
        """Raise the reason if the request was made."""
        if self._reason is not None:
            raise self._reason


class ExecutorPool:
    """Runs jobs, one per executor at a time."""

    def __init__(self, executors: Sequence[Executor], *, stop: StopRequest) -> None:
        self._executors = executors
        self._errors: list[BaseException] = []
        self._stop = stop

    def run(self, next_job: Callable[[], Job | None]) -> None:
        """Run jobs until `next_job` returns None; an executor asks for its next job as soon as it is free.

        If a job raises, the others stop after their current epochs, and the error is raised here.
        """

        def work(executor: Executor) -> None:
            try:
                while not self._errors and (job := next_job()) is not None:
                    job(executor)
            except BaseException as error:
                self._errors.append(error)
                if not self._stop.is_set:
                    self._stop.set(error)

        threads = [threading.Thread(target=work, args=(executor,), daemon=True) for executor in self._executors]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # with a timeout, so that the main thread receives signals
                thread.join(0.2)
        if self._errors:
            raise self._errors[0]

    def close(self) -> None:
        """Stop all executors."""
        for executor in self._executors:
            executor.stop()
