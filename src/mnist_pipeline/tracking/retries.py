"""Calls to a database again while other programs are at it: MLflow gives up at once, or soon."""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from mnist_pipeline.tracking.database_errors import is_locked, lost_race

LOCK_PATIENCE_SEC = 60.0
"""How long a database that another program has locked is waited for."""

_NUM_RACES = 8  # that a call may lose; whoever wins one is out of the next
_NOTICE_AFTER_SEC = 2.0
_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 1.0

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def retry(what: str, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Return what `call` returns; call it again where the database was locked, or took back what it had written.

    Args:
        what: The database, for the message.
        call: Leaves nothing in the database when it raises.
        *args: Of `call`.
        **named: Of `call`.

    Raises:
        Exception: What the last call raised.
    """
    started = time.monotonic()
    pause, races, has_said = _FIRST_PAUSE_SEC, 0, False
    while True:
        try:
            return call(*args, **named)
        except Exception as error:
            waited = time.monotonic() - started
            if is_locked(error):
                if waited + pause > LOCK_PATIENCE_SEC:
                    raise
                if waited >= _NOTICE_AFTER_SEC and not has_said:
                    _log.warning("waiting: %s is locked by another program", what)
                    has_said = True
            elif lost_race(error) and races < _NUM_RACES:
                races += 1
            else:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))  # those who collided must not meet again
        pause = min(2 * pause, _LONGEST_PAUSE_SEC)


class RetryingClient:
    """An MLflow client, each of whose methods is called retry.

    Each of MLflow's writes is one transaction, or several that may be made twice.
    """

    def __init__(self, client: Any, *, what: str) -> None:
        self.without_retries = client
        self._what = what

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.without_retries, name)
        return lambda *args, **named: retry(self._what, method, *args, **named)
