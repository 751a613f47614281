"""Keeps off the terminal what libraries write past every setting."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def library_noise() -> Iterator[None]:
    """Keep to itself what is written to stderr by TensorFlow's C++ and by processes begun here; show it on an error."""
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


def _open_capture() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no space for it: then the noise is lost
        return Path(os.devnull).open("r+b")
