"""How Ctrl-C, SIGTERM and SIGHUP stop a command whose trainings run side by side."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from mnist_pipeline.system.errors import Terminated
from mnist_pipeline.system.signals import STOP_SIGNALS


def stop_on_signals(stop: Callable[[BaseException], None]) -> None:
    """Call `stop` on the first signal; end the process at once on the second."""
    is_second = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_second
        if is_second:  # the workers die with this process, and what is kept resumes as after a kill
            os._exit(130 if number == signal.SIGINT else 143)
        is_second = True
        stop(KeyboardInterrupt() if number == signal.SIGINT else Terminated())
        print("stopping after the running epochs; press Ctrl-C again to stop at once", file=sys.stderr)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
