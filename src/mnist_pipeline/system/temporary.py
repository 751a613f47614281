"""Temporary files: one folder per process, removed at its end, or by the next command if it was killed."""

import contextlib
import os
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

from mnist_pipeline.system import locks
from mnist_pipeline.system.errors import UserError

_PREFIX = "mnist-"
_LAST = -200  # multiprocessing removes its own folder, which is inside ours, at -100


def begin() -> None:
    """Put all temporary files of this process and its children, libraries included, into one folder.

    Raises:
        UserError: No folder for temporary files is writable.
    """
    try:
        parent = Path(tempfile.gettempdir())
        if parent.name.startswith(_PREFIX) and parent.with_name(f"{parent.name}.lock").exists():
            return  # it was done before, in this process or in its parent
        _clear(parent)
        _open(parent)
    except OSError as error:
        raise UserError(
            f"temporary files cannot be written ({error.strerror or error}): free some space, or set TMPDIR to a folder"
        ) from error


def _open(parent: Path) -> None:
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, suffix=".lock", dir=parent, delete=False) as file:
        lock_file = Path(file.name)
    lock = locks.make(lock_file)
    lock.acquire()  # released when this process dies, however it dies
    folder = lock_file.with_suffix("")
    folder.mkdir(mode=0o700)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)

    def end() -> None:
        _remove(folder, lock_file)
        lock.release()

    Finalize(None, end, exitpriority=_LAST)


def _clear(parent: Path) -> None:
    """Remove the folders of commands that were killed: no process holds their locks."""
    for lock_file in parent.glob(f"{_PREFIX}*.lock"):
        with contextlib.suppress(OSError, locks.Timeout):
            # Other users may put anything into a shared folder.
            if lock_file.lstat().st_uid == _user_id() and not lock_file.is_symlink():
                with locks.make(lock_file).acquire(blocking=False):
                    _remove(lock_file.with_suffix(""), lock_file)


def _user_id() -> int:
    return os.getuid() if os.name == "posix" else 0


def _remove(folder: Path, lock_file: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        lock_file.unlink(missing_ok=True)
