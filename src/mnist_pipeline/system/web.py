"""A web application on a socket that listens, from its first answer to an end in order.

It listens on 127.0.0.1, but every website that this machine's browser shows can send requests there. So only those are
answered that name this machine as their host and come from the application's own pages.
"""

import asyncio
import re
import signal
import socket
from collections.abc import Callable

import h11
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mnist_pipeline.system.errors import Terminated

HEADER_TIMEOUT_SEC = 30.0
"""How long the headers of a request may take to arrive."""

SHUTDOWN_SEC = 3

_OWN_HOST = re.compile(rb"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE)


class _OnlyOwnPages:
    """Refuses with 403 what a foreign website makes a browser send, be it under a name of its own (DNS rebinding)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = _find_refusal(scope) if scope["type"] == "http" else None
        answer = self._app if reason is None else PlainTextResponse(f"{reason}\n", 403)
        await answer(scope, receive, send)


def _find_refusal(scope: Scope) -> str | None:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not _OWN_HOST.fullmatch(hosts[0]):
        return f"Host {_show(hosts)}: expected 127.0.0.1 or localhost"
    own = b"http://" + hosts[0].lower()
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if any(origin.lower() != own for origin in origins):
        return f"Origin {_show(origins)}: expected none, or {own.decode()}"
    if not scope["raw_path"].startswith(b"/"):  # a whole URL, which may name another host
        return f"request for {_show([scope['raw_path']])}: expected a path that starts with /"
    return None


def _show(values: list[bytes]) -> str:
    return ascii(b", ".join(values)[:100].decode("latin-1")) if values else "is missing"


class _Protocol(H11Protocol):
    """Closes a connection that keeps sending without ever completing a request; uvicorn would wait for ever.

    The clock runs from the connection's first moment, or from the first bytes that follow an answer, until the headers
    of a request are complete. Further bytes do not reset it.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.DONE):  # a request is being answered
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_TIMEOUT_SEC, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


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

    Requests whose Host is not 127.0.0.1 or localhost get a 403, and so do those whose Origin is another site.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        Terminated: By SIGTERM or SIGHUP.
    """
    config = uvicorn.Config(
        _OnlyOwnPages(app),
        http=_Protocol,
        ws="none",
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
