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
    with _open_capture() as captured:
        kept = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(kept, captured.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Hold back what is written to stderr; yield a function that returns it, also afterwards."""
    with _open_capture() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        text = ""

        def read() -> str:
            return text

        try:
            yield read
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")


def _open_capture() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no space for it: the output is lost
        return Path(os.devnull).open("r+b")
