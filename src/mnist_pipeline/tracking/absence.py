"""Whether an error says that a server is away, so that the call can be made again when it is back."""

from collections.abc import Iterator

import requests
from mlflow.exceptions import MlflowException

_AWAY_CODES = (502, 503, 504)
_POSTGRESQL = ("psycopg", "psycopg2")
# Of PostgreSQL: it shuts down, crashes, starts, has no connection left, or has become a standby that can only be read.
_AWAY_STATES = ("57P01", "57P02", "57P03", "53300", "25006")
_CONNECTION_STATES = "08"


def is_away(error: BaseException) -> bool:
    """Return whether a tracking server or a PostgreSQL server did not answer."""
    return any(_is_away(link) for link in _list_causes(error))


def _is_away(error: BaseException) -> bool:
    if isinstance(
        error, ConnectionError | requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError
    ):
        return True
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in _AWAY_CODES
    if isinstance(error, MlflowException):
        text = str(error)
        return "Max retries exceeded" in text or any(f"error code {code}" in text for code in _AWAY_CODES)
    return _is_lost_connection(getattr(error, "orig", None) or error)  # SQLAlchemy keeps the driver's error


def _is_lost_connection(error: BaseException) -> bool:
    kind = type(error)
    if kind.__module__.partition(".")[0] not in _POSTGRESQL:
        return False
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None:  # the client itself noticed
        return any(base.__name__ in ("OperationalError", "InterfaceError") for base in kind.__mro__)
    return state in _AWAY_STATES or state.startswith(_CONNECTION_STATES)


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
