"""A web application on a listening socket, from its first answer to a clean end.

Any website in a browser that reaches the socket can send requests there, even if it listens on 127.0.0.1. So only
requests are answered that name this machine as their host and come from the application's own pages.
"""

import asyncio
import ipaddress
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

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII)


class _OnlyOwnPages:
    """Refuses with 403 what a foreign website makes a browser send, even under its own name (DNS rebinding)."""

    def __init__(self, app: ASGIApp, is_own: Callable[[str], bool]) -> None:
        self._app = app
        self._is_own = is_own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._find_refusal(scope) if scope["type"] == "http" else None
        answer = self._app if reason is None else PlainTextResponse(f"{reason}\n", 403)
        await answer(scope, receive, send)

    def _find_refusal(self, scope: Scope) -> str | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        named = _HOST.fullmatch(hosts[0].decode("latin-1").lower()) if len(hosts) == 1 else None
        if named is None or not self._is_own(named[1] or named[2]):
            return f"Host {_show(hosts)}: expected this machine, such as 127.0.0.1 or localhost"
        own = b"http://" + hosts[0].lower()
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if any(origin.lower() != own for origin in origins):
            return f"Origin {_show(origins)}: expected none, or {own.decode()}"
        if not scope["raw_path"].startswith(b"/"):  # a complete URL, which may name another host
            return f"request for {_show([scope['raw_path']])}: expected a path that starts with /"
        return None


def _make_check(listener: socket.socket, host: str) -> Callable[[str], bool]:
    """Return whether a name in the header Host means this machine.

    A socket that others can reach may be called by any address: a website can give a name of its own to this machine,
    but no number.
    """
    names = {"127.0.0.1", "localhost", host.lower()}
    if ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        return lambda named: named in names
    names.add(socket.gethostname().lower())

    def is_own(named: str) -> bool:
        try:
            ipaddress.ip_address(named)
        except ValueError:
            return named in names
        return True

    return is_own


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


def run(app: ASGIApp, listener: socket.socket, *, host: str = "127.0.0.1", on_ready: Callable[[], None]) -> None:
    """Serve `app` on a listening socket until a signal arrives.

    Requests whose Host is not this machine get a 403, and so do requests whose Origin is another site.

    Args:
        app: The application.
        listener: The socket.
        host: How the socket's address was given.
        on_ready: Called once requests are answered.

    Raises:
        KeyboardInterrupt: On Ctrl-C.
        Terminated: On SIGTERM or SIGHUP.
    """
    config = uvicorn.Config(
        _OnlyOwnPages(app, _make_check(listener, host)),
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
