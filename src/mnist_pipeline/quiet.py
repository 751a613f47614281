"""Keeps off the terminal what libraries write past every setting."""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def library_noise() -> Iterator[None]:
    """Keep to itself what is written to stderr by TensorFlow's C++ and by processes begun here; show it on an error."""
    with tempfile.TemporaryFile() as captured:
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
