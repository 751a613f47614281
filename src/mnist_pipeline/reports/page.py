"""A page as plain values, and as one self-contained HTML file."""

import base64
import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mnist_pipeline.system import files
from mnist_pipeline.system.text import printable


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Lines:
    """Names with their values."""

    lines: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """A command to type into a terminal, or the text of a file."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table: its first column names the rows.

    Attributes:
        numeric: Which columns hold numbers, and are right-aligned.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        alt: A description, for readers who cannot see it.
        png: The file's bytes, or a function that draws it when it is written.
    """

    alt: str
    png: bytes | Callable[[], bytes] = field(repr=False)

    def read(self) -> bytes:
        """Return the file's bytes."""
        return self.png if isinstance(self.png, bytes) else self.png()

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.read()).decode()}"


Item = Text | Lines | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and the items below it."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        lead: The result, in a sentence or two.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]


def tabulate(caption: str, table: pd.DataFrame, *, show: Callable[[str, object], str]) -> Table:
    """Return a table for a page; `show` formats a value of a column."""
    return Table(
        caption=caption,
        headings=tuple(str(column) for column in table),
        rows=tuple(
            tuple("" if pd.isna(value) else show(str(column), value) for column, value in row.items())
            for row in table.to_dict("records")
        ),
        numeric=tuple(pd.api.types.is_numeric_dtype(table[column]) for column in table),
    )


def write(page: Page, path: Path) -> None:
    """Write the page completely, or not at all.

    Raises:
        UserError: It cannot be written there.
    """
    text = render(page)
    with files.output(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def render(page: Page) -> str:
    """Return the page as HTML that needs no other file."""
    import jinja2  # imported here, because the terminal does not need it

    template = importlib.resources.files("mnist_pipeline.reports").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_finalize
    )
    environment.tests["of"] = lambda item, kind: type(item).__name__ == kind
    return environment.from_string(template).render(page=page)


def _finalize(value: object) -> object:
    return printable(value, keep="\n\t") if isinstance(value, str) else value
