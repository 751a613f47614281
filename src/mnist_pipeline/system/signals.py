"""Ctrl-C, SIGTERM and SIGHUP end a command by an exception, so that its run is closed."""

import signal
from types import FrameType
from typing import NoReturn

from mnist_pipeline.system.errors import Terminated

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # no SIGHUP on Windows


def install() -> None:
    """Raise KeyboardInterrupt or Terminated on the first of the signals, and ignore the others."""
    for number in STOP_SIGNALS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # respect nohup
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the run while it writes its final status.
    for other in STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated
