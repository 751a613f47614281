"""The process that workers are forked from. It imports TensorFlow once for all, while others do other things."""

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
    """Return multiprocessing's context for workers; the first call starts the server, and does not wait for it.

    Raises:
        UserError: It cannot be started.
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
