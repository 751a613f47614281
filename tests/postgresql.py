"""A PostgreSQL server of our own, which tests stop and start."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator["PostgreSQL"]:
    """A server that is shared by the tests of a process; each makes a database of its own."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed")
    with running() as server:
        yield server


class PostgreSQL:
    """A server on 127.0.0.1, with the user `me` and no password."""

    def __init__(self, folder: Path, port: int, within: Sequence[str], listens_on: str) -> None:
        self.url = f"postgresql://me@127.0.0.1:{port}"
        self._within = within
        self._listens_on = listens_on
        self._folder = folder
        self._port = port
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [
            *(f"listen_addresses={self._listens_on}", f"port={self._port}", "fsync=off"),
            f"unix_socket_directories={self._folder}",
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        self._child = subprocess.Popen(
            [*self._within, *as_its_user(str(BINARIES[-1] / "postgres"), "-D", f"{self._folder}/data", *options)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        for _ in range(300):
            try:
                psycopg.connect(self.through_socket("postgres")).close()
                return
            except psycopg.OperationalError:
                assert self._child.poll() is None, "the server ended"
                time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        """End it without waiting for its clients."""
        if self._child is not None:
            self._child.send_signal(signal.SIGINT)
            self._child.wait(30)
            self._child = None

    def restart(self, *, after_sec: float = 0.0) -> None:
        """Let it be away for a while."""
        self.stop()
        time.sleep(after_sec)
        self.start()

    def through_socket(self, name: str) -> str:
        """Return the URL of a database through a socket that all network namespaces see."""
        return f"postgresql://me@/{name}?host={self._folder}&port={self._port}"

    def create_database(self, name: str) -> str:
        """Create a database and return its URL."""
        self.execute(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Return what a statement returns."""
        with psycopg.connect(self.through_socket("postgres"), autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []


def as_its_user(*words: str) -> list[str]:
    """Return a command for another user than root, whom PostgreSQL refuses."""
    as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
    return [*as_user, *words]


@contextlib.contextmanager
def running(
    within: Sequence[str] = (), *, port: int | None = None, listens_on: str = "127.0.0.1", password_of: str = ""
) -> Iterator[PostgreSQL]:
    """A new server.

    Args:
        within: A command that starts it, such as one in a network namespace.
        port: By default a free one.
        listens_on: An address.
        password_of: The one user who needs a password.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: the path of a socket has at most 100 bytes
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
    initialise = [str(BINARIES[-1] / "initdb"), "-D", f"{folder}/data", "-U", "me", "--auth=trust", "--no-sync"]
    subprocess.run(as_its_user(*initialise), check=True, capture_output=True, cwd="/")
    if password_of:
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {password_of} all scram-sha-256\n{rules.read_text()}")
    server = PostgreSQL(folder, port, within, listens_on)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
