"""A web application on a socket that listens, from its first answer to an end in order."""

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from mnist_pipeline.errors import Terminated

SHUTDOWN_SEC = 3


class _Server(uvicorn.Server):
    """Says when it is ready, and ends in order when its terminal is closed."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.was_hung_up = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        hang_up = getattr(signal, "SIGHUP", None)  # uvicorn sees to the other signals
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(hang_up, self._hang_up)
        self._on_ready()

    def _hang_up(self) -> None:
        self.was_hung_up = True
        self.should_exit = True


def run(app: ASGIApp, listener: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Answer on a socket that listens, until a signal comes.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        Terminated: By SIGTERM or SIGHUP.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SEC,  # who has sent half a request is not waited for
    )
    # Connections take it over. Without it each answer waits 40 ms for the client's acknowledgement of its first packet.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(config, on_ready)
    server.run(sockets=[listener])
    if server.was_hung_up:
        raise Terminated
