"""Locks of the operating system, which are released when their holder dies, however it dies."""

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_pipeline.system.errors import UserError

__all__ = ["Timeout", "describe_process", "hold", "in_use", "is_held", "make", "remove"]

_POLL_SEC = 1.0

_log = logging.getLogger(__name__)


def make(path: Path) -> FileLock:
    """Return a lock on a file, whose content is lost. Any thread may release it; acquiring it may raise `Timeout`."""
    return FileLock(path, thread_local=False)


@contextlib.contextmanager
def hold(
    path: Path, *, what: str, wait: bool, next_step: str, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock whose file is `path`. The holder may remove the file while it holds the lock.

    Args:
        path: Is created, and names the holder.
        what: What the lock protects, for the message.
        wait: Wait for another holder instead of failing.
        next_step: What else a user can do, for the message; may be empty.
        on_wait: Called every second of the wait; may raise to end it.

    Raises:
        UserError: Another process holds it and `wait` is false, or the file cannot be created.
    """
    lock = make(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = _describe_holder(path)
        if not wait:
            raise in_use(what, holder, next_step) from error
        _log.info("wait      %s is in use by %s", what, holder)
        _acquire(lock, on_wait)
    except OSError as error:
        raise UserError(
            f"{error.strerror or error}: the lock {path} cannot be taken; fix that and run the same command again"
        ) from error
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock is held all the same
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}))
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, on_wait: Callable[[], None]) -> None:
    while not lock.is_locked:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_POLL_SEC)
        on_wait()


def in_use(what: str, holder: str, next_step: str) -> UserError:
    """Return the error that says who uses something."""
    return UserError(f"{what} is in use by {holder}: wait for it with wait=true{', ' if next_step else ''}{next_step}")


def describe_process(pid: int | str, host: str, since: float) -> str:
    """Return in words which process holds something, and since when, in seconds since 1970."""
    shown = time.strftime("%H:%M:%S on %Y-%m-%d", time.localtime(since))
    return f"process {pid} on {host} since {shown}"


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock whose file is `path`."""
    if not path.exists():
        return False
    try:
        with make(path).acquire(blocking=False):
            return False
    except Timeout:
        return True


def remove(path: Path) -> bool:
    """Remove the file of a lock that no process holds; return whether that was done.

    While it is held: a command that waits for it notices that the file is gone, and creates a new one.
    """
    try:
        with make(path).acquire(blocking=False):
            path.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return describe_process(holder["pid"], holder["host"], holder["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has only just started
