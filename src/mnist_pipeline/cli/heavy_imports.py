"""How the commands that need TensorFlow and MLflow import them."""

import contextlib
import gc
from collections.abc import Iterator

from mnist_pipeline.system import quiet, temporary


def begin() -> None:
    """Prepare for what needs no TensorFlow: temporary files, and the package's log on the terminal.

    Raises:
        UserError: No folder for temporary files can be written to.
    """
    from mnist_pipeline.system import console  # it takes a tenth of a second, which no refusal should wait for

    temporary.begin()
    console.show_log()


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import TensorFlow silently, then show the package's log and turn the garbage collector on again.

    Raises:
        UserError: No folder for temporary files can be written to.
    """
    temporary.begin()
    with quiet.library_noise():
        from mnist_pipeline.system import console  # it takes a tenth of a second, which no refusal should wait for

        yield
    console.show_log()
    if not gc.isenabled():  # once per process, so that what later runs leave behind is collected
        gc.freeze()
        gc.enable()
