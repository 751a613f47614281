"""Worker processes of this machine: each trains epoch by epoch, and asks after each epoch whether to continue.

They are forked from a server that has imported TensorFlow once. A worker dies as soon as its parent dies, however it
dies.
"""

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors import forkserver
from mnist_pipeline.executors.failure import MEMORY_STEP, Cause, Failure, HinderedError
from mnist_pipeline.executors.worker import Reported, WorkerDiedError

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
_CRASHES = {
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
}
_UNKNOWN_EXIT = 255
"""The exit code that multiprocessing reports if the fork server was killed as well."""


class ForkedWorker:
    """A worker process, as seen by its parent; see `Worker`.

    Raises:
        HinderedError: It cannot be started.
    """

    def __init__(self) -> None:
        self._found = ""
        context = forkserver.context()
        try:
            self._tasks, theirs = context.Pipe()
            # Nothing is ever written to it: it closes when this process ends.
            life, self._held = context.Pipe(duplex=False)
            self._process = context.Process(target=_work, args=(theirs, life), daemon=True)
            self._process.start()
        except (OSError, EOFError) as error:
            why = getattr(error, "strerror", None) or "the process that starts workers was killed"
            raise HinderedError(
                Failure(Cause.surroundings, f"no worker can be started ({why})", MEMORY_STEP)
            ) from error
        theirs.close()
        life.close()

    def begin(self, config: Config, found: Found, start: bytes | None) -> None:
        """Send the process its task."""
        with self._reporting_death():
            self._tasks.send((config, None if found.identity == self._found else found, start))
        self._found = found.identity

    def follow(self) -> Generator[Reported]:
        """Yield the epochs that the process reports."""
        with self._reporting_death():
            while (message := self._tasks.recv()) is not None:
                if isinstance(message, Failure):
                    raise message.to_error()
                continues = False
                try:
                    yield message
                    continues = True
                finally:
                    self._tasks.send(continues)
                    if not continues:
                        self._tasks.recv()

    @contextlib.contextmanager
    def _reporting_death(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise WorkerDiedError(describe_death(self._process.exitcode)) from error

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join(5)


def describe_death(code: int | None) -> Failure:
    """Return whether a process crashed, or a signal from outside ended it, for example because of a lack of memory."""
    is_outside = code == _UNKNOWN_EXIT or (code is not None and code < 0 and -code not in _CRASHES)
    reason = f"its worker died ({_describe_exit(code)})"
    return Failure(Cause.surroundings, reason, MEMORY_STEP) if is_outside else Failure(Cause.error, reason)


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = ", out of memory?" if -code == signal.SIGKILL else ""
    return f"signal {-code}{hint}"


def _work(tasks: Connection, life: Connection) -> None:
    from mnist_pipeline.executors import training

    for number in _STOP_SIGNALS:  # Ctrl-C reaches the whole process group; the parent decides what to do
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(life,), daemon=True).start()
    gc.freeze()  # imported modules are shared with other workers until someone writes to their memory
    gc.enable()
    room: training.TrainingRoom | None = None

    def report(reported: Reported) -> None:
        tasks.send(reported)
        if not tasks.recv():
            raise training.StoppedError

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            config, found, start = tasks.recv()
            if room is None or found is not None:
                room = training.TrainingRoom(found)
            tasks.send(room.train(config, start, report))


def _die_with(life: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        life.recv()
    os._exit(1)
