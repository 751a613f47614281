"""The process that workers are forked from. It imports TensorFlow once for all of them, in parallel to this process."""

import contextlib
import functools
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, util
from typing import Any

from mnist_pipeline.system import quiet
from mnist_pipeline.system.errors import UserError

_PRELOADED = ["mnist_pipeline.executors.preloaded"]
_MAX_LENGTH = 75
"""In bytes, of the folder for temporary files: multiprocessing adds 32 to it for a socket, which may have 107."""
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
    with _short_folder():
        util.get_temp_dir()  # multiprocessing keeps to the folder that its first call makes
    with quiet.library_noise():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _short_folder() -> Iterator[None]:
    """Let multiprocessing keep its sockets in /tmp where TMPDIR is too long for them, as on many clusters."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) > _MAX_LENGTH:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = usual
