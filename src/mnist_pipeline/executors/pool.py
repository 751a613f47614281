"""A pool of executors, each driven by a thread that runs one job after the other."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mnist_pipeline.executors.executor import Executor, NoWorkerError
from mnist_pipeline.executors.failure import HinderedError
from mnist_pipeline.system.errors import UserError

Job = Callable[[Executor], None]

_PARTING_SEC = 10.0
"""How long executors may take to end once their place is gone; they may wait for it in a library."""
_LOOK_SEC = 0.5
"""How often an idle executor looks whether there is a job after all."""


class StopRequest:
    """A request to stop the command, made by a signal or an error. Every training checks it after each epoch."""

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


@dataclass(frozen=True)
class Jobs:
    """Where the jobs come from; called by one thread at a time.

    Attributes:
        is_left: Whether `take` would return one.
        take: Returns the next job; None if there is none now. One that a lost worker gave back comes again.
    """

    is_left: Callable[[], bool]
    take: Callable[[], Job | None]


class Places(Protocol):
    """Where executors are: this machine, or a cluster."""

    def count(self) -> int:
        """Return how many executors there are to be now; it may grow.

        Raises:
            UserError: The place is gone.
        """

    def make(self, index: int) -> Executor:
        """Return an executor, the one with this index."""

    def close(self) -> None:
        """Let everything go."""


class ExecutorPool:
    """Runs jobs, one per executor at a time."""

    def __init__(self, places: Places, *, stop: StopRequest) -> None:
        self._places = places
        self._executors: list[Executor] = []
        self._errors: list[BaseException] = []
        self._stop = stop
        self._changed = threading.Condition()
        self._num_running = self._num_waiting = 0

    def run(self, jobs: Jobs) -> None:
        """Run jobs until none is left or runs; an executor takes its next job as soon as it is free.

        An executor gets its worker before it takes a job, so that no job waits with it. An idle one gives its worker up
        for those that wait for one. If a job raises, the others stop after their current epochs, and the error is
        raised here.
        """

        def work(executor: Executor) -> None:
            try:
                while self._wait_for_job(executor, jobs):
                    if self._prepare(executor, jobs):
                        self._run_next(executor, jobs)
            except BaseException as error:
                self._errors.append(error)
                if not self._stop.is_set:
                    self._stop.set(error)

        threads: list[threading.Thread] = []
        until = math.inf
        while time.monotonic() < until:
            if not self._errors:
                try:
                    while len(self._executors) < self._places.count():
                        self._executors.append(self._places.make(len(self._executors)))
                except UserError as error:
                    self._errors.append(error)
                    self._stop.set(error)
                    until = time.monotonic() + _PARTING_SEC
            for executor in self._executors[len(threads) :]:
                threads.append(threading.Thread(target=work, args=(executor,), daemon=True))
                threads[-1].start()
            alive = [thread for thread in threads if thread.is_alive()]
            if not alive:
                break
            alive[0].join(0.2)  # with a timeout, so that the main thread receives signals
        if self._errors:
            raise self._errors[0]

    def _wait_for_job(self, executor: Executor, jobs: Jobs) -> bool:
        """Return True when there is a job, and False when there will be none any more."""
        with self._changed:
            while not self._stop.is_set:
                if jobs.is_left():
                    return True
                if not self._num_running:
                    return False
                if self._num_waiting:
                    executor.stop()
                self._changed.wait(_LOOK_SEC)
        return False

    def _prepare(self, executor: Executor, jobs: Jobs) -> bool:
        """Return whether the executor has a worker; wait for one as long as there are jobs for it."""
        if executor.is_ready:
            return True
        next_look = time.monotonic() + _LOOK_SEC

        def goes_on() -> bool:
            nonlocal next_look
            if self._stop.is_set:
                return False
            if time.monotonic() < next_look:
                return True
            next_look = time.monotonic() + _LOOK_SEC
            with self._changed:
                return jobs.is_left() or self._num_running > 0

        with self._changed:
            self._num_waiting += 1
        try:
            return executor.prepare(goes_on)
        except HinderedError as error:
            raise UserError(f"{error}; {error.failure.next_step}") from error
        finally:
            with self._changed:
                self._num_waiting -= 1

    def _run_next(self, executor: Executor, jobs: Jobs) -> None:
        with self._changed:
            job = jobs.take()
            if job is None:
                return
            self._num_running += 1
        try:
            job(executor)
        except NoWorkerError:
            pass  # the job is left again
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Stop all executors, and let their places go."""
        for executor in self._executors:
            executor.stop()
        self._places.close()
