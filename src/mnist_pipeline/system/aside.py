"""Work in a thread of its own, while the caller waits for a computation that leaves Python to others."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def aside(work: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Do `work` during a `with` block, which ends when both are done.

    Yields:
        A function that raises what `work` has raised, if it has; the end of the block does so too.
    """
    errors: list[BaseException] = []

    def carry_out() -> None:
        try:
            work()
        except BaseException as error:  # raised in the caller's thread
            errors.append(error)

    def check() -> None:
        if errors:
            raise errors[0]

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        thread.join()
    check()
