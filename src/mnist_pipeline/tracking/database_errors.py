"""The message of a database, extracted from the errors that SQLAlchemy and MLflow wrap around it."""

import re
from collections.abc import Iterator

# How SQLAlchemy formats a driver's error. Over HTTP only this text is left.
_DRIVER = re.compile(r"\((?:\w+\.)+\w*(?:Error|Exception|Warning)\) ?([^\n]*)")
_LOCKED = re.compile(
    r"database (?:table |schema )?is locked|lock wait timeout|lock timeout|could not obtain lock", re.IGNORECASE
)
# MLflow raises the last two after a few retries of its own, without pauses or too few.
_BEATEN = re.compile(
    r"UNIQUE constraint failed|duplicate key|Duplicate entry|deadlock|could not serialize"
    r"|Model Version creation error|Failed to set tags with given within",
    re.IGNORECASE,
)


def explain(error: BaseException) -> str:
    """Return the reason of `error` in one line: the message of the database driver if there is one, else its own."""
    for link in _causes(error):
        said = getattr(link, "orig", None)  # the driver's error, as kept by SQLAlchemy
        found = _DRIVER.search(str(link))
        if said is not None or found:
            return _first_line(str(said) if said is not None else found[1] if found else "")
    return _first_line(str(error)) or type(error).__name__


def is_locked(error: BaseException) -> bool:
    """Return whether another program held the lock of the database, so that nothing was written."""
    return bool(_LOCKED.search(explain(error)))


def lost_race(error: BaseException) -> bool:
    """Return whether another program was faster, so that the database rolled the call back."""
    # An object that exists also exists on the next try: the caller looks it up instead.
    is_there = getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"
    return not is_there and bool(_BEATEN.search(explain(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
