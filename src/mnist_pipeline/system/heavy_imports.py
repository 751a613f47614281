"""How TensorFlow and MLflow are imported."""

import contextlib
import gc
import sys
from collections.abc import Iterator

from mnist_pipeline.system import quiet, temporary

_NUM_NEW_OBJECTS = 50_000
"""After which garbage is looked for. With the usual 700, what a command imports later takes half a second longer."""
_UNUSED_BY_KERAS = ("sklearn", "matplotlib")


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
    """Import TensorFlow for a command: silently, and then show the package's log.

    Raises:
        UserError: No folder for temporary files can be written to.
    """
    temporary.begin()
    with importing():
        from mnist_pipeline.system import console  # it takes a tenth of a second, which no refusal should wait for

        yield
    console.show_log()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import TensorFlow silently, then turn the garbage collector on again."""
    with quiet.library_noise():
        yield
    if not gc.isenabled():  # once per process, so that what later runs leave behind is collected
        gc.freeze()
        gc.set_threshold(_NUM_NEW_OBJECTS)
        gc.enable()


def import_keras() -> None:
    """Import Keras and TensorFlow, but not what Keras imports for its wrappers and plots, which nothing here uses.

    That would take another second. Here it is imported while the first epochs are computed.
    """
    if "keras" in sys.modules:
        return
    is_collecting = gc.isenabled()
    gc.disable()  # what is imported stays; see `commands.py`
    absent = [name for name in _UNUSED_BY_KERAS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None makes their import an ImportError
    try:
        import keras  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
        if is_collecting:
            gc.enable()
