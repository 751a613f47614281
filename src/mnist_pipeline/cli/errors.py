"""How an error is printed."""

import os
import sys
import traceback

from mnist_pipeline.system.errors import RefusedError, UserError
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.text import printable


def print_error(error: Exception) -> None:
    """Print an error on standard error: a `UserError` as one line, a bug with its traceback."""
    if not isinstance(error, UserError) or os.environ.get("MNIST_PIPELINE_TRACEBACK") == "1":
        print(printable(hide("".join(traceback.format_exception(error))), keep="\n\t"), end="", file=sys.stderr)
    if isinstance(error, UserError):
        label = "refused" if isinstance(error, RefusedError) else "error"
        print(f"{label}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
