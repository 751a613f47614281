"""The process that workers are forked from. It imports TensorFlow once for all of them, in parallel to this process."""

import functools
import multiprocessing
import os
import threading
from multiprocessing import forkserver
from typing import Any

from mnist_pipeline.system import quiet
from mnist_pipeline.system.errors import UserError

_PRELOADED = ["mnist_pipeline.sweep.executors.training", "mnist_pipeline.sweep.executors.worker"]
_STARTING = threading.Lock()


def context() -> Any:
    """Return the multiprocessing context for workers; the first call starts the server without waiting for it.

    Raises:
        UserError: The server cannot be started.
    """
    with _STARTING:
        try:
            return _start()
        except OSError as error:  # its socket is a temporary file
            raise UserError(
                f"{error.strerror or error}: the process for the workers cannot be started; free some space for "
                "temporary files (TMPDIR) or some memory, and run the same command again"
            ) from error


@functools.cache
def _start() -> Any:
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with quiet.library_noise():
        forkserver.ensure_running()
    return context
