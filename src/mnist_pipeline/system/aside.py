"""Work in a thread of its own, while the caller waits for a computation that leaves Python to others."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

_TURN_SEC = 0.0005
"""How long a thread may keep Python. With the usual 5 ms the caller waits for 0.3 s between two computations."""


class Aside:
    """A piece of work that is done in a thread of its own.

    Args:
        work: Is called once.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._carry_out, daemon=True)

    def start(self) -> None:
        """Start it, if it was not started before; return at once."""
        if not self._has_started:
            self._thread.start()

    def check(self) -> None:
        """Raise what the work has raised, if it has."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait until it is done, if it was started."""
        if self._has_started:
            self._thread.join()

    @property
    def _has_started(self) -> bool:
        return self._thread.ident is not None

    def _carry_out(self) -> None:
        try:
            self._work()
        except BaseException as error:  # raised in the caller's thread
            self._error = error


@contextlib.contextmanager
def aside(work: Callable[[], None]) -> Iterator[Aside]:
    """Do `work` during a `with` block, from its `start` on; the block ends when both are done.

    What the work raises, the end of the block raises. If the block itself fails, work that has not started is left.
    """
    doing = Aside(work)
    with short_turns():
        try:
            yield doing
        except BaseException:
            doing.wait()
            raise
        doing.start()
        doing.wait()
    doing.check()


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Let threads take turns often, so that one which imports does not keep the others waiting."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_SEC)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
