"""The process that workers are forked from. It imports TensorFlow once for all, while others do other things."""

import functools
import multiprocessing
import os
import threading
from multiprocessing import forkserver
from typing import Any

from mnist_pipeline import quiet

_PRELOADED = ["mnist_pipeline.sweep.work", "mnist_pipeline.sweep.worker"]
_STARTING = threading.Lock()


def context() -> Any:
    """Return multiprocessing's context for workers; the first call starts the server, and does not wait for it."""
    with _STARTING:
        return _start()


@functools.cache
def _start() -> Any:
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with quiet.library_noise():
        forkserver.ensure_running()
    return context
