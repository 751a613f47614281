"""Pages in the terminal, and as Markdown."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
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
        table: May be wider than the terminal: its last columns are left out then.
        most_rows: None: all.
        styles: Rich's style of each row; default: none.
    """
    hidden: list[str] = []
    table = dataclasses.replace(table, rows=tuple(tuple(map(printable, row)) for row in table.rows))  # for their widths
    while len(table.headings) > _MIN_COLUMNS and _least_width(table, most_rows) > out().width:
        hidden.insert(0, table.headings[-1])
        rows = tuple(row[:-1] for row in table.rows)
        table = Table(table.caption, table.headings[:-1], rows, table.numeric[:-1])
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    is_short = all(len(row[0]) <= _SHORT for row in table.rows)
    for number, (heading, is_numeric) in enumerate(zip(table.headings, table.numeric, strict=True)):
        justify: Literal["left", "right"] = "right" if is_numeric else "left"
        shown.add_column(heading, justify=justify, overflow="fold", no_wrap=number == 0 and is_short)
    for row, style in itertools.zip_longest(table.rows[:most_rows], styles[:most_rows], fillvalue=""):
        shown.add_row(*row, style=style)
    out().print(shown)
    if most_rows is not None and len(table.rows) > most_rows:
        out().print(f"and {len(table.rows) - most_rows:,} more")
    if hidden:
        out().print(f"not shown, because the terminal is too narrow: {', '.join(hidden)}")


def _least_width(table: Table, most_rows: int | None) -> int:
    """Return the least width at which no word breaks, except for long names."""
    columns = zip(table.headings, *table.rows[:most_rows], strict=True)
    longest = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    return sum(min(width, _SHORT) + _PADDING for width in longest)


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
