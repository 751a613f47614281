"""How TensorFlow and MLflow are imported by the commands that need them."""

import contextlib
import gc
from collections.abc import Iterator

from mnist_pipeline import quiet


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import TensorFlow in silence, and turn the garbage collector on again after it."""
    with quiet.library_noise():
        yield
    if not gc.isenabled():  # once a process: what later runs leave behind is to be collected
        gc.freeze()
        gc.enable()
