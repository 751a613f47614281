"""One owner at a time, by a lock of the operating system that dies with its owner, whatever way it dies."""

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_pipeline.system.errors import UserError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(path: Path, *, what: str, wait: bool, next_step: str) -> Iterator[None]:
    """Own what `path`, the file of a lock, stands for. Its owner may remove the file while it owns it.

    Args:
        path: Is created, and holds who the owner is.
        what: What is owned, for the message.
        wait: Wait for another owner instead of giving up.
        next_step: What else a user may do, for the message.

    Raises:
        UserError: Another process owns it and `wait` is false, or the file cannot be created.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = _describe_holder(path)
        if not wait:
            raise UserError(
                f"{holder} is at {what}: let it finish, or wait for it with wait=true {next_step}"
            ) from error
        _log.info("wait      %s is at %s", holder, what)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{error.strerror or error}: the lock {path} cannot be taken; fix that and run the same command again"
        ) from error
    try:
        with contextlib.suppress(OSError):  # on a full disk it is owned all the same
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}))
        yield
    finally:
        lock.release()


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        since = time.strftime("%H:%M:%S on %Y-%m-%d", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']}, since {since},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has only just begun
