"""Retries of calls that conflict with other programs using the database; MLflow fails at once, or too soon."""

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, ParamSpec, TypeVar

from mnist_pipeline.system.patience import Patience
from mnist_pipeline.tracking.database_errors import is_locked, lost_race

LOCK_PATIENCE_SEC = 60.0
"""How long to wait for a database that another program has locked."""

_NUM_RACES = 8  # that a call may lose; a winner does not take part in the next one
_NOTICE_AFTER_SEC = 2.0
_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 1.0

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def retry(what: str, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Return the result of `call`; repeat it if the database was locked, or rolled the call back.

    Args:
        what: The database, for messages.
        call: Must leave nothing in the database if it raises.
        *args: For `call`.
        **named: For `call`.

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
        time.sleep(pause * random.uniform(0.5, 1.5))  # so that calls that collided do not collide again
        pause = min(2 * pause, _LONGEST_PAUSE_SEC)


class RetryingClient:
    """An MLflow client, each of whose methods is retried.

    Each of MLflow's writes is one transaction, or several that may be made twice. Only `create_run` is repeated by its
    caller when the answer is lost.

    Args:
        connect: Returns MLflow's, the same every time; called when a method is needed first.
        what: The database, for messages.
        patience: With a server that is away; by default its absence is an error.
        takes_turns: Whether threads use the database one at a time.

    Attributes:
        hasty: The same, without patience with a server that is away.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        what: str,
        patience: Patience | None = None,
        takes_turns: bool = False,
    ) -> None:
        self._connect = connect
        self.hasty = self if patience is None else RetryingClient(connect, what=what, takes_turns=takes_turns)
        self._what = what
        self._patience = patience
        self._turn: Any = threading.Lock() if takes_turns else None
        self.hasty._turn = self._turn

    @property
    def without_retries(self) -> Any:
        """MLflow's client."""
        return self._connect()

    @property
    def is_busy(self) -> bool:
        """Whether a call would wait for another thread."""
        return self._turn is not None and self._turn.locked()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.without_retries, name)
        return partial(self.carry_out, method, takes_turn=not name.endswith("artifacts"))  # files are no database

    def carry_out(self, method: Callable[..., T], *args: Any, takes_turn: bool = True, **named: Any) -> T:
        """Return the result of a call of the database, as a method of the client would be called."""
        turn = self._turn if takes_turn and self._turn is not None else nullcontext()

        def take_turn() -> T:
            with turn:
                return method(*args, **named)

        def once() -> T:
            return retry(self._what, take_turn)

        return once() if self._patience is None else self._patience.call(once)
