"""Silences what libraries write to the terminal regardless of their settings."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def library_noise() -> Iterator[None]:
    """Hold back what TensorFlow's C++ code and child processes write to stderr; show it only after an error."""
    said: Callable[[], bytes] = bytes
    try:
        with captured() as said:
            yield
    except Exception:
        os.write(2, said())
        raise


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], bytes]]:
    """Hold back what is written to stderr; yield a function that returns it, once that is over."""
    with _open_capture() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        content = b""
        try:
            yield lambda: content
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            content = file.read()


def _open_capture() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no space for it: the output is lost
        return Path(os.devnull).open("r+b")
