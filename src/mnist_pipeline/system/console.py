"""The two consoles, standard output and standard error, made on first use. Whatever they print is safe to show."""

import functools
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.text import printable

PIPED_WIDTH = 140
"""Columns of output that goes to a pager or a file, which need not be as narrow as the narrowest terminal."""

_LABEL_WIDTH = 20


class _Console(Console):
    """Prints every string literally: without markup, and with control characters escaped."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return the text of a cell, a title or a line as it is shown, so that Rich measures that."""
        shown = printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(shown, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return what Rich is about to write; text that did not come as a string is made printable here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


class _Output(_Console):
    def on_broken_pipe(self) -> None:
        """Continue without output: the reader has seen enough, and the exit code must still report the decision."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@functools.cache
def out() -> Console:
    """Return the console of standard output."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return _Output(soft_wrap=True, width=width)


@functools.cache
def err() -> Console:
    """Return the console of standard error."""
    return _Console(stderr=True)


def print_fields(fields: Mapping[str, object], *, width: int = _LABEL_WIDTH) -> None:
    """Print one line per field on standard output: its name in a column of `width`, then its value."""
    for name, value in fields.items():
        out().print(f"{name:<{width - 1}} {value}")


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        style, prefix = ("", "") if record.levelno < logging.WARNING else ("yellow", f"{record.levelname.lower()}: ")
        err().print(f"{prefix}{hide(record.getMessage())}", style=style, soft_wrap=True)


def show_log() -> None:
    """Print the package's log on standard error, one line per message; warnings stand out."""
    package = logging.getLogger("mnist_pipeline")
    package.handlers = [_LogLines()]
    package.setLevel(logging.INFO)
    package.propagate = False
