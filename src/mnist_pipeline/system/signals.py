"""What Ctrl-C, SIGTERM and SIGHUP do: each ends the command by an exception, so that its run is closed."""

import signal
from types import FrameType
from typing import NoReturn

from mnist_pipeline.system.errors import Terminated

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # no SIGHUP on Windows


def install() -> None:
    """Raise KeyboardInterrupt or Terminated on the first of the signals, and pass over the others."""
    for number in STOP_SIGNALS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish is kept
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # One is enough: a second must not come between a run and the status that it ends with.
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated
