"""How TensorFlow and MLflow are imported by the commands that need them."""

import contextlib
import gc
from collections.abc import Iterator

from mnist_pipeline.system import quiet, temporary


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import TensorFlow in silence, and turn the garbage collector on again after it.

    Raises:
        UserError: No folder for temporary files can be written into.
    """
    temporary.begin()
    with quiet.library_noise():
        yield
    if not gc.isenabled():  # once a process: what later runs leave behind is to be collected
        gc.freeze()
        gc.enable()
