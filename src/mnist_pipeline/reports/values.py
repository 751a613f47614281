"""How values are formatted for people."""

import datetime
import math
from collections.abc import Sequence


def show(column: str, value: object) -> str:
    """Format a value of a column."""
    match value:
        case datetime.datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M")
        case float() if math.isnan(value):
            return ""
        case float() if "_sec" in column:
            return f"{value:.1f}"
        case float() if column.startswith(("train/", "validation/", "test/")):
            return f"{value:.4f}"
        case float() if "." in column and "/" not in column:  # a param, as it was given
            return f"{value:.10g}"
        case float():
            return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1000 else f"{value:g}"
        case _:
            return str(value)


def show_count(column: str, value: object) -> str:
    """Format a value of a table of counts."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_share(column: str, value: object) -> str:
    """Format a value of a table of shares, 0..1, and counts."""
    return f"{value:.4f}" if isinstance(value, float) else show_count(column, value)


def points(difference: float) -> str:
    """Format a difference of accuracies, -1..1, in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def count(number: int, what: str) -> str:
    """Format a number of things: 1 run, 2 runs, 1,000 runs."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def when(ms: int) -> str:
    """Format a time in milliseconds of Unix time as local time."""
    return datetime.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def list_names(names: Sequence[str]) -> str:
    """Join names with commas; if one of them has a comma, or is empty, all are quoted."""
    is_plain = all(name and "," not in name for name in names)
    return ", ".join(names if is_plain else [f'"{name}"' for name in names])
