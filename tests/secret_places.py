"""A checkout with secrets in many places, and a server behind a password."""

import base64
import contextlib
import http.client
import http.server
import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from conftest import ROOT, command

# Every planted secret has it as each of its parts: where a half of one is shown, it is found too.
MARK = "S3cret"
SLASHED, AT, TOKEN = f"{MARK}/{MARK}", f"{MARK}@{MARK}", f"{MARK}-token-1"
USER = "me"
BASIC = base64.b64encode(f"{USER}:{SLASHED}".encode()).decode()
CLOSED = "127.0.0.1:9"
SMOKE = ["preset=smoke", "train.num_epochs=1", "model.hidden_width=8"]


class _Guard(http.server.BaseHTTPRequestHandler):
    """Lets those through to `backend` who have the password."""

    backend: ClassVar[str]

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Basic {BASIC}":
            self.send_error(401)
            return
        connection = http.client.HTTPConnection(self.backend, timeout=30)
        headers = {key: value for key, value in self.headers.items() if key != "Host"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def guard(backend: str) -> Iterator[tuple[str, http.server.ThreadingHTTPServer]]:
    """Yield the host and port of a server that wants a password, before one that does not."""
    handler = type("Guard", (_Guard,), {"backend": backend.removeprefix("http://")})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listening.server_port}", listening
        listening.shutdown()


@dataclass
class Place:
    """A checkout with secrets in it, and a folder into which everything is written."""

    checkout: Path
    written: Path
    printed: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MNIST_"))}
        return {
            **kept,
            "PYTHONPATH": str(self.checkout / "src"),
            "MNIST_PIPELINE_HOME": str(self.written / "home"),
            "KERAS_HOME": str(self.written / "keras"),
            "TMPDIR": str(self.written / "tmp"),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MNIST_PIPELINE_TRACEBACK": "1",  # the more is said, the more may slip through
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments), cwd=self.written / "current", env={**self.environment, **environment},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        self.printed += [done.stdout, done.stderr]
        return done

    def require_no_secret(self) -> None:
        found = [f"printed: {text}" for text in map(show_secret, map(str.encode, self.printed)) if text]
        for path in self.written.rglob("*"):
            secret = show_secret(str(path.relative_to(self.written)).encode())
            if path.is_file():
                secret = secret or show_secret(path.read_bytes())
            if secret:
                found.append(f"{path.relative_to(self.written)}: {secret}")
        assert found == []


def show_secret(content: bytes) -> str:
    """Return what stands around a secret, in any spelling; empty where there is none."""
    found = re.search(rb".{0,60}(?:%b|%b).{0,60}" % (MARK.encode(), re.escape(BASIC.encode())), content)
    return repr(found[0]) if found else ""


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def make_place(folder: Path, empty_store: Path) -> Place:
    """A checkout of this code with secrets in files that are modified, in no commit, and of a further folder."""
    checkout, written = folder / "checkout", folder / "written"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", ".gitignore"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "conf" / "notes.yaml").write_text(f"a: 1\npassword: {MARK}\n")
    git(checkout, "init", "--quiet")
    git(checkout, "add", "-A")
    git(checkout, "commit", "--quiet", "-m", "first")
    (checkout / "conf" / "notes.yaml").write_text(f"a: 2\npassword: {MARK}\n")  # it stands beside what was changed
    with (checkout / "src" / "mnist_pipeline" / "system" / "web.py").open("a") as file:
        file.write(f'\nAPI_KEY = "{MARK}"\nADDED = "http://{USER}:{SLASHED}@h"\n')
    for name in (".env", "credentials.yaml", "x.pem", "notes.txt"):
        (checkout / "conf" / name).write_text(f"x={MARK}\n")
    (checkout / "conf" / "preset" / "mine.yaml").write_text(
        f"# @package _global_\n# password: {MARK}\ntracking:\n"
        f"  uri: 'sqlite:///{written}/home/mlruns/mlflow.db?password={MARK}'\n"
    )
    for name in ("home/mlruns", "current", "tmp"):
        (written / name).mkdir(parents=True)
    shutil.copy(empty_store, written / "home" / "mlruns" / "mlflow.db")
    return Place(checkout, written)


def stored(place: Place, what: str) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(place.written / "home" / "mlruns" / "mlflow.db")) as database:
        return dict(database.execute(f"select key, value from {what}").fetchall())
