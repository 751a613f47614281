"""A web application on a listening socket, from its first answer to a clean end.

It listens on 127.0.0.1, but any website in a browser on this machine can send requests there. So it answers only
requests that name this machine as their host and come from the application's own pages.
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
    """Refuses with 403 what a foreign website makes a browser send, even under its own name (DNS rebinding)."""

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
    if not scope["raw_path"].startswith(b"/"):  # a complete URL, which may name another host
        return f"request for {_show([scope['raw_path']])}: expected a path that starts with /"
    return None


def _show(values: list[bytes]) -> str:
    return ascii(b", ".join(values)[:100].decode("latin-1")) if values else "is missing"


class _Protocol(H11Protocol):
    """Closes a connection that never completes the headers of a request; uvicorn would wait for ever.

    The clock runs from the start of the connection, or from the first bytes after an answer, until the headers of a
    request are complete. Further bytes do not reset it.
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
    """Reports when it is ready, and ends cleanly when its terminal is closed."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.was_hung_up = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then report it."""
        await super().startup(sockets=sockets)
        hang_up = getattr(signal, "SIGHUP", None)  # uvicorn handles the other signals
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(hang_up, self._hang_up)
        self._on_ready()

    def _hang_up(self) -> None:
        self.was_hung_up = True
        self.should_exit = True


def run(app: ASGIApp, listener: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Serve `app` on a listening socket until a signal arrives.

    Requests whose Host is not 127.0.0.1 or localhost get a 403, and so do requests whose Origin is another site.

    Raises:
        KeyboardInterrupt: On Ctrl-C.
        Terminated: On SIGTERM or SIGHUP.
    """
    config = uvicorn.Config(
        _OnlyOwnPages(app),
        http=_Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SEC,  # do not wait for clients with an incomplete request
    )
    # Connections inherit it. Without it each answer waits 40 ms for the client's acknowledgement of its first packet.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(config, on_ready)
    server.run(sockets=[listener])
    if server.was_hung_up:
        raise Terminated
