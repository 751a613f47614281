"""What a database said when it refused, dug out of what SQLAlchemy and MLflow wrap around it."""

import re
from collections.abc import Iterator

# As SQLAlchemy writes a driver's error. Over HTTP this text is all that is left of it.
_DRIVER = re.compile(r"\((?:\w+\.)+\w*(?:Error|Exception|Warning)\) ?([^\n]*)")
_LOCKED = re.compile(
    r"database (?:table |schema )?is locked|lock wait timeout|lock timeout|could not obtain lock", re.IGNORECASE
)
# The last two are MLflow's, after a few tries of its own, which take no pause or end too soon.
_BEATEN = re.compile(
    r"UNIQUE constraint failed|duplicate key|Duplicate entry|deadlock|could not serialize"
    r"|Model Version creation error|Failed to set tags with given within",
    re.IGNORECASE,
)


def explain(error: BaseException) -> str:
    """Return in one line why `error` came: the words of the database's driver where it has any, else its own."""
    for link in _causes(error):
        said = getattr(link, "orig", None)  # SQLAlchemy keeps the driver's error there
        found = _DRIVER.search(str(link))
        if said is not None or found:
            return _first_line(str(said) if said is not None else found[1] if found else "")
    return _first_line(str(error)) or type(error).__name__


def is_locked(error: BaseException) -> bool:
    """Return whether another program held the lock of the database. Nothing was written."""
    return bool(_LOCKED.search(explain(error)))


def lost_race(error: BaseException) -> bool:
    """Return whether another program was faster, and the database took back all that the call had written."""
    # What exists already does so on a second try too: whoever wanted to create it looks it up.
    is_there = getattr(error, "error_code", None) == "RESOURCE_ALREADY_EXISTS"
    return not is_there and bool(_BEATEN.search(explain(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
