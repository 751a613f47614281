"""A finding: what is not as it should be, and what is done about it."""

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Remedy(enum.Enum):
    """Who does something about a finding."""

    fix = "to fix"  # doctor --fix
    prune = "to prune"  # doctor --prune: nothing is wrong, but it takes space
    person = "by hand"
    none = "note"  # nothing is wrong, but it is good to know


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        what: One line.
        remedy: Who does something.
        act: Does it, and returns what was done; may raise UserError. It checks again first, and can be repeated after a
            kill. None where nothing can be done by a program.
    """

    remedy: Remedy
    what: str
    act: Callable[[], str] | None = None


def show_bytes(number: int) -> str:
    """Return a number of bytes as a person reads it, for example `12.3 MB`."""
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def show_age(seconds: float) -> str:
    """Return a length of time as a person reads it, for example `3 hours`."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count:,} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
