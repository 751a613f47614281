"""Files that are written completely or not at all, even if the power fails."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from mnist_pipeline.system.errors import UserError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is moved to `path` at the end of an uninterrupted `with` block.

    Raises:
        OSError: It cannot be written. An earlier file is still there.
    """
    place = Path(os.path.realpath(path))  # a link stays a link; pathlib raises for a link to itself
    unfinished = beside(place)
    try:
        yield unfinished
        move(unfinished, place)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def beside(place: Path) -> Path:
    """Return the path of a hidden file in the same folder that no other command uses."""
    return place.with_name(f".{uuid.uuid4().hex}.unfinished")


def move(unfinished: Path, place: Path) -> None:
    """Move a file that is complete to its place in the same file system, durably.

    Raises:
        OSError: It cannot be moved.
    """
    _sync(unfinished)
    unfinished.replace(place)
    if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename is durable
        _sync(place.parent)


def read_umask() -> int:
    """Return which rights a new file is not given."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    return umask


def _sync(path: Path) -> None:
    """Wait until the disk has the file, or the entries of the folder."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def output(path: Path) -> Iterator[Path]:
    """Do as `whole` does, for a path that the user gave.

    Raises:
        UserError: It cannot be written.
    """
    with reporting_errors(path), whole(path) as unfinished:
        yield unfinished


@contextlib.contextmanager
def reporting_errors(path: Path) -> Iterator[None]:
    """Report in one line that `path` cannot be written.

    Raises:
        UserError: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): give another path") from error


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder; any OSError inside the `with` block counts as an error of the folder.

    Raises:
        UserError: The files cannot be written, for example because the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="mnist-pipeline-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        place = tempfile.tempdir or "any folder for temporary files"
        raise UserError(
            f"{error.strerror or error}: temporary files cannot be written to {place}; free some space there or set "
            "TMPDIR to another folder, and run the same command again, which resumes"
        ) from error
