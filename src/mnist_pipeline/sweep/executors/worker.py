"""Worker processes: each takes a task, trains it epoch by epoch, and asks after each epoch whether to continue.

They are forked from a server that has imported TensorFlow once. They know nothing about Optuna or MLflow; the parent
process tracks their epochs. A worker dies as soon as the parent dies, however it dies.
"""

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Dataset, Found
from mnist_pipeline.data.splits import split
from mnist_pipeline.sweep.executors import forkserver
from mnist_pipeline.sweep.executors.executor import Task
from mnist_pipeline.sweep.failure import MEMORY_STEP, Cause, Failure, HinderedError, TrainingFailedError
from mnist_pipeline.tracking.record import Point, read_epoch_metrics

if TYPE_CHECKING:
    from mnist_pipeline.train.epochs import Epoch

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
_CRASHES = {
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
}
_UNKNOWN_EXIT = 255
"""The exit code that multiprocessing reports if the fork server was killed as well."""


class WorkerDiedError(Exception):
    """The process died.

    Attributes:
        failure: Whether it crashed, or a signal from outside ended it, for example because of a lack of memory.
    """

    def __init__(self, code: int | None) -> None:
        is_outside = code == _UNKNOWN_EXIT or (code is not None and code < 0 and -code not in _CRASHES)
        reason = f"its worker died ({_describe_exit(code)})"
        self.failure = Failure(Cause.surroundings, reason, MEMORY_STEP) if is_outside else Failure(Cause.error, reason)
        super().__init__(reason)


class Worker:
    """A worker process, as seen by its parent.

    Raises:
        HinderedError: It cannot be started.
    """

    def __init__(self, found: Found) -> None:
        context = forkserver.context()
        try:
            self._tasks, theirs = context.Pipe()
            # Nothing is ever written to it: it closes when this process ends.
            life, self._held = context.Pipe(duplex=False)
            self._process = context.Process(target=_work, args=(theirs, life, found), daemon=True)
            self._process.start()
        except (OSError, EOFError) as error:
            why = getattr(error, "strerror", None) or "the process that starts workers was killed"
            raise HinderedError(
                Failure(Cause.surroundings, f"no worker can be started ({why})", MEMORY_STEP)
            ) from error
        theirs.close()
        life.close()

    def train(self, task: Task) -> Generator[Point]:
        """Yield every epoch of a training, first those in a checkpoint. To stop the training, close the generator.

        Raises:
            TrainingFailedError, HinderedError: The training did not end. The worker is ready for another.
            WorkerDiedError: The process died.
        """
        try:
            self._tasks.send(task)
            while (message := self._tasks.recv()) is not None:
                if isinstance(message, Failure):
                    is_hindered = message.cause is Cause.surroundings
                    raise HinderedError(message) if is_hindered else TrainingFailedError(message)
                continues = False
                try:
                    yield message
                    continues = True
                finally:
                    self._tasks.send(continues)
                    if not continues:
                        self._tasks.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise WorkerDiedError(self._process.exitcode) from error

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join(5)


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = ", out of memory?" if -code == signal.SIGKILL else ""
    return f"signal {-code}{hint}"


def _work(tasks: Connection, life: Connection, found: Found) -> None:
    from mnist_pipeline.sweep.executors import training

    for number in _STOP_SIGNALS:  # Ctrl-C reaches the whole process group; the parent decides what to do
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(life,), daemon=True).start()
    gc.freeze()  # imported modules are shared with other workers until someone writes to their memory
    splits: dict[tuple[float, int], Dataset] = {}

    def report(epoch: "Epoch") -> None:
        # Not the epoch itself: the parent would have to import TensorFlow to unpickle it.
        tasks.send(Point(epoch.number, read_epoch_metrics(epoch), epoch.ended_ms))
        if not tasks.recv():
            raise training.StoppedError

    def find_split(config: Config) -> Dataset:
        key = (config.data.validation_size, config.data.split_seed)
        if key not in splits:
            splits.clear()  # the splits of the confirmation are used one after the other
            splits[key] = split(found, config.data)
        return splits[key]

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task: Task = tasks.recv()
            tasks.send(training.train(task.config, find_split, folder=task.folder, report=report))


def _die_with(life: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        life.recv()
    os._exit(1)
