"""What an error of a store says: that a server is away, or that something does not exist.

The classes of errors are found by their names: to import what they are of takes seconds.
"""

import errno
import sqlite3
from collections.abc import Iterator

_AWAY_CODES = (502, 503, 504)
_NO_ANSWER = ("ConnectionError", "Timeout", "RetryError")
"""Errors of requests."""
_POSTGRESQL = ("psycopg", "psycopg2")
# Of PostgreSQL: it shuts down, crashes, starts, has no connection left, or has become a standby that can only be read.
_AWAY_STATES = ("57P01", "57P02", "57P03", "53300", "25006")
_CONNECTION_STATES = "08"
_STORES = ("mlflow", "sqlalchemy", "alembic")
_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""The error numbers of a missing file; MLflow's own OSError has none."""
_ABSENT_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_NOT_FOUND = 404


def is_of_store(error: BaseException) -> bool:
    """Return whether an error is one of MLflow, or of a database."""
    return isinstance(error, sqlite3.Error) or _is_of(error, *_STORES)


def error_code(error: BaseException) -> str | None:
    """Return MLflow's code of an error; None for every other error."""
    return getattr(error, "error_code", None) if _is_of(error, "mlflow") else None


def is_absent(error: BaseException) -> bool:
    """Return whether an error says that something does not exist, not that it could not be reached."""
    if _is_of(error, "requests"):
        response = getattr(error, "response", None)
        return response is not None and response.status_code == _NOT_FOUND
    if isinstance(error, OSError):
        return error.errno in _ABSENT
    return error_code(error) in _ABSENT_CODES


def is_away(error: BaseException) -> bool:
    """Return whether a tracking server or a PostgreSQL server did not answer."""
    return any(_is_away(link) for link in _list_causes(error))


def _is_away(error: BaseException) -> bool:
    if isinstance(error, ConnectionError):
        return True
    if _is_of(error, "requests"):
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code in _AWAY_CODES
        return any(base.__name__ in _NO_ANSWER for base in type(error).__mro__)
    if _is_of(error, "mlflow"):
        text = str(error)
        return "Max retries exceeded" in text or any(f"error code {code}" in text for code in _AWAY_CODES)
    return _is_lost_connection(getattr(error, "orig", None) or error)  # SQLAlchemy keeps the driver's error


def _is_lost_connection(error: BaseException) -> bool:
    if not _is_of(error, *_POSTGRESQL):
        return False
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None:  # the client itself noticed
        return any(base.__name__ in ("OperationalError", "InterfaceError") for base in type(error).__mro__)
    return state in _AWAY_STATES or state.startswith(_CONNECTION_STATES)


def _is_of(error: BaseException, *packages: str) -> bool:
    return any(base.__module__.partition(".")[0] in packages for base in type(error).__mro__)


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
