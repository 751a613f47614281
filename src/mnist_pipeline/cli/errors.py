"""How errors are printed."""

import os
import sys
import traceback
from collections.abc import Sequence

from mnist_pipeline.system.errors import RefusedError, UserError
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.text import printable


class ReportedError(Exception):
    """A command failed, and has printed why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code if isinstance(error, UserError) else 1


def print_error(error: Exception) -> None:
    """Print an error on standard error: a `UserError` as one line, a bug with its traceback."""
    if not isinstance(error, UserError) or os.environ.get("MNIST_PIPELINE_TRACEBACK") == "1":
        print(printable(hide("".join(traceback.format_exception(error))), keep="\n\t"), end="", file=sys.stderr)
    if isinstance(error, UserError):
        label = "refused" if isinstance(error, RefusedError) else "error"
        print(f"{label}: {printable(' '.join(str(error).split()))}", file=sys.stderr)


def report_problems(problems: Sequence[str]) -> None:
    """Print each problem as a separate error.

    Raises:
        UserError: The last of them; the command then ends with exit code 1.
    """
    for problem in problems[:-1]:
        print_error(UserError(problem))
    if problems:
        raise UserError(problems[-1])
