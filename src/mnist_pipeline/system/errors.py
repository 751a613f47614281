"""Errors that a user can cause. Only these are printed as one line; any other exception is a bug and shows itself."""

import os
import sys
import traceback

from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.text import printable


class UserError(Exception):
    """Something the user can fix. The message is one line: the value, what was expected, the next step.

    It may quote what a library said: secrets in it are masked.
    """

    exit_code = 1
    label = "error"

    def __init__(self, message: str) -> None:
        super().__init__(hide(message))


class ConfigError(UserError):
    """The command line or the configuration is wrong. Raised before a run is opened or anything written."""

    exit_code = 2


class GoneError(UserError):
    """What a command needs was deleted from the store."""


class RefusedError(UserError):
    """A gate of the registry refused."""

    exit_code = 3
    label = "refused"


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception: nothing but the end of the command may swallow it."""

    exit_code = 143


def tell(error: Exception) -> None:
    """Print an error on stderr: what a user can fix as one line, a bug with its traceback."""
    if not isinstance(error, UserError) or os.environ.get("MNIST_PIPELINE_TRACEBACK") == "1":
        print(printable(hide("".join(traceback.format_exception(error))), keep="\n\t"), end="", file=sys.stderr)
    if isinstance(error, UserError):
        print(f"{error.label}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
