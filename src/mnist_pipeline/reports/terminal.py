"""Pages in the terminal, and as Markdown."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table as RichTable

from mnist_pipeline.reports.page import Code, Lines, Page, Picture, Table, Text
from mnist_pipeline.system.console import out, print_fields
from mnist_pipeline.system.text import markdown, printable

MOST_ROWS = 20
_SHORT = 48
_PADDING = 3
_MIN_COLUMNS = 3


def print_page(page: Page, *, most_rows: int | None = MOST_ROWS) -> None:
    """Print a page without its pictures, with at most `most_rows` rows per table; None: all."""
    for section in page.sections:
        if all(isinstance(item, Picture) for item in section.items):
            continue
        out().print()
        out().print(section.title, style="bold")
        for item in section.items:
            match item:
                case Text():
                    _print_prose(item.text, style="yellow" if item.is_warning else "")
                case Lines():
                    print_fields(item.lines)
                case Code():
                    for line in item.text.split("\n"):
                        out().print(line.expandtabs())
                case Table():
                    print_table(item, most_rows=most_rows)
    out().print()
    _print_prose(page.lead, style="bold")


def _print_prose(text: str, *, style: str) -> None:
    out().print(text, style=style, soft_wrap=not out().is_terminal)  # a pipe gets unwrapped lines


def print_report(page: Page, path: Path) -> None:
    """Print the result of the report, and its path."""
    out().print(page.lead, style="bold")
    print_written(path)


def print_addresses(addresses: Mapping[str, str]) -> None:
    """Print its addresses in the MLflow UI."""
    print_fields(addresses)


def print_written(path: Path) -> None:
    """Print the path of a file that was written."""
    print_fields({"written": path})


def print_table(table: Table, *, most_rows: int | None = MOST_ROWS, styles: Sequence[str] = ()) -> None:
    """Print a table without its caption, and say what is left out.

    Args:
        table: May be wider than the terminal: its last columns are left out then. No number and no word is broken.
        most_rows: None: all.
        styles: Rich's style of each row; default: none.
    """
    rows = [tuple(map(printable, row)) for row in table.rows[:most_rows]]
    columns = [
        _Column.measure(heading, [row[number] for row in rows], is_numeric=is_numeric)
        for number, (heading, is_numeric) in enumerate(zip(table.headings, table.numeric, strict=True))
    ]
    num_shown = len(columns)
    while num_shown > _MIN_COLUMNS and _width_of([column.least for column in columns[:num_shown]]) > out().width:
        num_shown -= 1
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column, width in zip(columns, _share_out(columns[:num_shown], out().width), strict=False):
        justify: Literal["left", "right"] = "right" if column.is_numeric else "left"
        shown.add_column(column.heading, justify=justify, overflow="fold", width=width)
    for row, style in itertools.zip_longest(rows, styles[:most_rows], fillvalue=""):
        shown.add_row(*row[:num_shown], style=style)
    out().print(shown)
    if most_rows is not None and len(table.rows) > most_rows:
        out().print(f"and {len(table.rows) - most_rows:,} more")
    if num_shown < len(columns):
        hidden = ", ".join(column.heading for column in columns[num_shown:])
        out().print(f"too narrow for: {hidden}")


@dataclass(frozen=True)
class _Column:
    """A column of a table in the terminal.

    Attributes:
        least: The width at which no number and no word is broken, except for very long words.
        full: The width at which nothing is wrapped.
    """

    heading: str
    is_numeric: bool
    least: int
    full: int

    @classmethod
    def measure(cls, heading: str, cells: Sequence[str], *, is_numeric: bool) -> Self:
        words = [*heading.split(), *(cells if is_numeric else (word for cell in cells for word in cell.split()))]
        least = min(max(map(cell_len, words), default=0), _SHORT)
        return cls(heading, is_numeric, least=least, full=max(map(cell_len, [heading, *cells])))


def _width_of(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * (len(widths) - 1) + 2


def _share_out(columns: Sequence[_Column], width: int) -> list[int]:
    """Return the width of each column; the first get what they need to be unwrapped, as far as there is room."""
    left = width - _width_of([column.least for column in columns])
    widths = []
    for column in columns:
        more = max(min(column.full - column.least, left), 0)
        left -= more
        widths.append(column.least + more)
    return widths


def to_markdown(page: Page) -> str:
    """Return the page without its pictures as Markdown."""
    parts = [f"# {markdown(page.title)}", markdown(page.lead)]
    for section in page.sections:
        parts.append(f"## {markdown(section.title)}")
        for item in section.items:
            match item:
                case Text():
                    parts.append(markdown(item.text))
                case Table():
                    rows = [list(map(markdown, row)) for row in item.rows]
                    frame = pd.DataFrame(rows, columns=list(map(markdown, item.headings)))
                    align = ["right" if is_numeric else "left" for is_numeric in item.numeric]
                    parts.append(frame.to_markdown(index=False, disable_numparse=True, colalign=align))
    return "\n\n".join(parts) + "\n"
