"""Files that are written completely or not at all."""

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
        UserError: It cannot be written.
    """
    place = Path(os.path.realpath(path))  # a link stays a link; pathlib raises for a link to itself
    unfinished = place.with_name(f".{uuid.uuid4().hex}.unfinished")
    try:
        with reporting_errors(path):
            yield unfinished
            unfinished.replace(place)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


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
