"""What every web application of the project does with a request before it reads it, in a real process."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mnist_pipeline.system import web

HEADER_TIMEOUT_SEC = 0.5
SERVER = f"""
import socket
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from mnist_pipeline.system import web

async def app(scope, receive, send):
    request = Request(scope, receive)
    await PlainTextResponse(f"got {{len(await request.body())}}")(scope, receive, send)

web.HEADER_TIMEOUT_SEC = {HEADER_TIMEOUT_SEC}
listener = socket.create_server(("127.0.0.1", 0))
web.run(app, listener, on_ready=lambda: print(listener.getsockname()[1], flush=True))
"""
HOST = b"Host: localhost"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())
        child.send_signal(signal.SIGTERM)


@pytest.fixture
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
        yield opened


def request(*headers: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


def read_status(connection: socket.socket) -> int:
    """Read one answer."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    head = answer.decode("latin-1").lower()
    rest = sum(int(line.split()[1]) for line in head.splitlines() if line.startswith("content-length:"))
    while rest:
        rest -= len(connection.recv(rest))
    return int(head.split()[1])


@pytest.mark.parametrize("host", [b"127.0.0.1", b"127.0.0.1:5000", b"localhost", b"LOCALHOST:8080"])
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"DELETE /x HTTP/1.0"])
def test_requests_for_this_machine_are_answered(host: bytes, line: bytes, connection: socket.socket) -> None:
    connection.sendall(request(b"Host: " + host, line=line))
    assert read_status(connection) == 200


def test_the_applications_own_pages_are_answered(connection: socket.socket) -> None:
    for host in (b"127.0.0.1:5000", b"localhost:8000", b"localhost"):
        connection.sendall(request(b"Host: " + host, b"Origin: http://" + host))
        assert read_status(connection) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [b"Host: evil.example"],
        [b"Host: evil.example:5000"],
        [b"Host: localhost.evil.example"],
        [b"Host: evil.example#localhost"],
        [b"Host: localhost@evil.example"],
        [b"Host: xlocalhost"],
        [b"Host: 0.0.0.0:5000"],
        [b"Host: [::1]:5000"],
        [b"Host:"],
        [HOST, b"Origin: http://evil.example"],
        [HOST, b"Origin: null"],
        [HOST, b"Origin: "],
        [HOST, b"Origin: https://localhost"],
        [HOST, b"Origin: http://localhost:3000"],
        [HOST, b"Origin: http://localhost.evil.example"],
        [HOST, b"Origin: http://localhost", b"Origin: http://evil.example"],
        [b"Host: evil.example", b"Origin: http://evil.example"],
        [b"Host: evil.example", b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"],
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_requests_of_a_foreign_page_are_refused(method: bytes, headers: list[bytes], connection: socket.socket) -> None:
    connection.sendall(request(*headers, line=method + b" / HTTP/1.1"))
    assert read_status(connection) == 403


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"GET / HTTP/1.0", [], 403),
        (b"GET / HTTP/1.1", [], 400),
        (b"GET / HTTP/1.1", [HOST, HOST], 400),
        (b"GET / HTTP/1.1", [HOST, b"Host: evil.example"], 400),
        (b"GET http://evil.example/ HTTP/1.1", [HOST], 403),
        (b"OPTIONS * HTTP/1.1", [HOST], 403),
    ],
)
def test_a_host_that_is_not_clear_is_refused(
    line: bytes, headers: list[bytes], status: int, connection: socket.socket
) -> None:
    connection.sendall(request(*headers, line=line))
    assert read_status(connection) == status


def is_cut_off(connection: socket.socket, drip: bytes = b"") -> bool:
    """Return whether the server closes the connection, while it gets `drip` again and again."""
    deadline = time.monotonic() + 20 * HEADER_TIMEOUT_SEC
    connection.settimeout(HEADER_TIMEOUT_SEC / 5)
    while time.monotonic() < deadline:
        try:
            connection.sendall(drip)
            if connection.recv(1000) == b"":
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("start", "drip"), [(b"", b""), (b"GET", b""), (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ", b"x"), (b"", b"\r\n")]
)
def test_headers_that_never_end_are_cut_off(start: bytes, drip: bytes, connection: socket.socket) -> None:
    connection.sendall(start)
    assert is_cut_off(connection, drip)


@pytest.mark.parametrize("start", [request(HOST), request(HOST, b"Content-Length: 1", line=b"PUT / HTTP/1.1") + b"x"])
def test_a_further_requests_headers_are_cut_off_too(start: bytes, connection: socket.socket) -> None:
    connection.sendall(start)
    assert read_status(connection) == 200
    connection.sendall(b"GET / HTTP/1.1\r\nA: ")
    assert is_cut_off(connection, b"x")


def test_a_refused_body_that_never_ends_is_cut_off(connection: socket.socket) -> None:
    connection.sendall(request(b"Host: evil.example", b"Content-Length: 1000", line=b"POST / HTTP/1.1"))
    assert read_status(connection) == 403
    assert is_cut_off(connection, b"x")


def test_a_slow_request_is_not_cut_off(connection: socket.socket) -> None:
    head = request(HOST, b"Content-Length: 2", line=b"POST / HTTP/1.1")
    for _ in range(2):  # the second time on a connection that was idle for longer than headers may take
        connection.sendall(head[:20])
        time.sleep(HEADER_TIMEOUT_SEC / 5)
        connection.sendall(head[20:] + b"x")
        time.sleep(1.3 * HEADER_TIMEOUT_SEC)
        connection.sendall(b"x")
        assert read_status(connection) == 200
        time.sleep(1.3 * HEADER_TIMEOUT_SEC)
    connection.sendall(request(HOST))
    assert read_status(connection) == 200


def test_requests_that_come_together_are_all_answered(connection: socket.socket) -> None:
    connection.sendall(3 * request(HOST) + request(HOST)[:10])
    for _ in range(3):
        assert read_status(connection) == 200
    connection.sendall(request(HOST)[10:])
    assert read_status(connection) == 200


@pytest.mark.parametrize(
    ("named", "is_own"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("192.168.1.20", True),
        ("fe80::1", True),
        (socket.gethostname().lower(), True),
        ("evil.example", False),
        ("192.168.1.20.evil.example", False),
        ("1.2.3", False),
    ],
)
def test_an_open_socket_answers_to_numbers_and_to_the_names_of_this_machine(named: str, is_own: bool) -> None:
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))  # it does not listen
        assert web._make_check(bound, "0.0.0.0")(named) is is_own
    with socket.create_server(("127.0.0.1", 0)) as closed:
        assert web._make_check(closed, "127.0.0.1")(named) is (named in ("127.0.0.1", "localhost"))
