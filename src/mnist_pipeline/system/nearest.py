"""What a person most likely meant who mistyped a name."""

import difflib
import re
from collections.abc import Iterable

_NEAR = 0.66  # of `difflib`'s similarity; below it, most proposals are not what was meant


def nearest(typed: str, known: Iterable[str]) -> str | None:
    """Return the name that was most likely meant: it is spelled nearly so, or it alone has what was typed as a word."""
    names = list(known)
    near = difflib.get_close_matches(typed, names, n=1, cutoff=_NEAR)
    if near:
        return near[0]
    holding = [name for name in names if typed in re.split(r"\W|_", name)]
    return holding[0] if len(holding) == 1 else None
