"""Runs side by side, each trained by a worker and tracked as usual by this process."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from mnist_pipeline.config.sections import Config
from mnist_pipeline.executors.executor import Executor, NoWorkerError, Task
from mnist_pipeline.executors.failure import HinderedError, TrainingFailedError
from mnist_pipeline.executors.pool import ExecutorPool, Job, Jobs, Places, StopRequest
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.checkpoints import Checkpoints
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.pipeline.run import RunResult
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import Point
from mnist_pipeline.tracking.tracker import Tracker


class Watch(Protocol):
    """Follows the runs, by their positions; called from several threads, one at a time."""

    def train(self, executor: int, *, number: int, point: Point) -> None:
        """An epoch of a run has ended on the executor with this index."""

    def finish(self, number: int, result: RunResult | Exception) -> None:
        """A run has ended."""


class Turns:
    """Lets one run at a time do everything but wait for its worker: drawing and Keras are not made for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have the turn."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Let others have it for a while."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()


def train_side_by_side(
    configs: Sequence[Config],
    prepare: Callable[[int], Request],
    tracker: Tracker,
    places: Places,
    *,
    watch: Watch,
    stop: StopRequest,
) -> list[RunResult | None]:
    """Train all runs, as many at once as there are places; return their results, None for those that failed.

    Args:
        configs: Of the runs. Of two equal ones, the second finds the result of the first.
        prepare: Returns the request of the run at this position.
        tracker: Of all of them.
        places: Where they are trained.
        watch: Is told how far they are, and why one failed.
        stop: Ends all of them after their current epochs.
    """
    pending = list(range(len(configs)))
    running: list[int] = []
    results: list[RunResult | None] = [None] * len(configs)
    turns = Turns()

    def find_next() -> int | None:
        in_flight = [configs[number] for number in running]
        return next((number for number in pending if configs[number] not in in_flight), None)

    def take() -> Job | None:
        number = find_next()
        if number is None:
            return None
        pending.remove(number)
        running.append(number)
        return partial(carry_out, number)

    def carry_out(number: int, executor: Executor) -> None:
        outcome: RunResult | Exception | None = None
        with turns.taken():
            try:
                request = prepare(number)
                trainer = partial(_train, executor, request, turns, partial(follow, executor, number))
                outcome = results[number] = run.execute(request, tracker, trainer=trainer)
            except NoWorkerError:
                pending.insert(0, number)
                raise
            except Exception as error:
                outcome = error
            finally:
                running.remove(number)
                if outcome is not None:
                    watch.finish(number, outcome)

    def follow(executor: Executor, number: int, point: Point) -> None:
        watch.train(executor.index, number=number, point=point)
        stop.check()

    pool = ExecutorPool(places, stop=stop)
    try:
        pool.run(Jobs(lambda: find_next() is not None, take))
    finally:
        pool.close()
    return results


def _train(
    executor: Executor, request: Request, turns: Turns, follow: Callable[[Point], None], checkpoints: Checkpoints
) -> Iterator[Point]:
    """Yield the epochs of a run, each once its checkpoint is written.

    Raises:
        UserError: The training failed, or was stopped by something outside of it.
    """
    task = Task(request.config, request.found, checkpoints)
    try:
        with contextlib.closing(executor.train(task, after=0)) as epochs:
            while True:
                with turns.let_go():
                    point = next(epochs, None)
                if point is None:
                    return
                follow(point)
                yield point
    except TrainingFailedError as error:
        raise UserError(f"the training failed ({error})") from error
    except HinderedError as error:
        raise UserError(f"{error}; {error.failure.next_step}") from error
