"""Patience with a server that is away: calls to it are repeated until it is back, or for so many seconds."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

_FIRST_PAUSE_SEC = 0.1
_LONGEST_PAUSE_SEC = 2.0

OnWait = Callable[[str | None], None]
"""Is told every second or so what is waited for, and None when it is back; may raise to end the wait."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Patience:
    """Repeats calls to one server, from any number of threads.

    Args:
        what: The server, for messages.
        limit_sec: How long a call is repeated.
        key: The setting that holds this limit, for messages.
        is_away: Whether an error says that the server did not answer.
        on_wait: See `OnWait`.
    """

    def __init__(
        self,
        what: str,
        limit_sec: float,
        *,
        key: str,
        is_away: Callable[[BaseException], bool],
        on_wait: OnWait = lambda what: None,
    ) -> None:
        self.limit_sec = limit_sec
        self.key = key
        self.on_wait = on_wait
        self._what = what
        self._is_away = is_away
        self._lock = threading.Lock()
        self._away_since: float | None = None

    def call(self, first: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Return the result of a call that is repeated while the server is away.

        Args:
            first: The call.
            again: The call once the first was not answered, though it may have been carried out; by default the same.

        Raises:
            Exception: What the call raised, if it is another error or the server has stayed away for too long.
        """
        call, until, pause = first, 0.0, _FIRST_PAUSE_SEC
        while True:
            try:
                result = call()
            except Exception as error:
                now = time.monotonic()
                until = until or now + self.limit_sec
                if not self._is_away(error) or now + pause > until:
                    raise
                self._wait(pause)
                call, pause = again or first, min(2 * pause, _LONGEST_PAUSE_SEC)
            else:
                if until:
                    self._welcome()
                return result

    def _wait(self, seconds: float) -> None:
        with self._lock:
            if self._away_since is None:
                self._away_since = time.monotonic()
                _log.warning("%s does not answer: waiting up to %g s (%s)", self._what, self.limit_sec, self.key)
            away_sec = time.monotonic() - self._away_since
        until = time.monotonic() + seconds * random.uniform(0.5, 1.0)  # so that threads do not all come back at once
        while (left := until - time.monotonic()) > 0:
            self.on_wait(f"{self._what}, away for {away_sec:.0f} s")
            time.sleep(min(left, 0.5))

    def _welcome(self) -> None:
        with self._lock:
            if self._away_since is None:
                return
            away_sec = time.monotonic() - self._away_since
            self._away_since = None
        _log.info("back      %s answers again, after %.0f s", self._what, away_sec)
        self.on_wait(None)
