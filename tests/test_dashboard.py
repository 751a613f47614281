"""Optuna's dashboard: a real one, in a child process."""

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from conftest import Cli, command

from mnist_pipeline.sweep.backend import open_storage
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.system.errors import UserError

STUDY = "my study"


@pytest.fixture
def journal(home: Path) -> Path:
    """The journal of a small study."""
    optuna.create_study(storage=open_storage(None, STUDY), study_name=STUDY)
    return journal_path(STUDY)


@pytest.fixture
def database(home: Path) -> str:
    """The URL of a database with a small study."""
    url = f"sqlite:///{home}/studies.db"
    optuna.create_study(storage=url, study_name=STUDY)
    return url


@contextlib.contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The dashboard and its port."""
    words = command("dashboard", "--port", "0", *arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env={**os.environ, **environment}, **pipes) as child:  # type: ignore[call-overload]
        try:
            found = re.fullmatch(
                r"Optuna dashboard: http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", child.stdout.readline()
            )
            assert found is not None, child.communicate(timeout=15)
            yield child, int(found[1])
        finally:
            child.kill()


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def studies(port: int) -> list[str]:
    status, answer = ask(port, "GET", "/api/studies")
    assert status == 200
    return [study["study_name"] for study in json.loads(answer)["study_summaries"]]


def test_no_other_site_can_delete_a_study(journal: Path) -> None:
    with started(f"sweep.study={STUDY!r}") as (child, port):
        assert studies(port) == [STUDY]
        assert "<title>Optuna Dashboard" in ask(port, "GET", "/dashboard")[1]
        for method, path in (("DELETE", "/api/studies/0"), ("GET", "/api/studies"), ("GET", "/dashboard")):
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
                status, answer = ask(port, method, path, **headers)
                assert status == 403
                assert answer.count("\n") == 1
        assert studies(port) == [STUDY]
        assert ask(port, "DELETE", "/api/studies/0", Origin=f"http://127.0.0.1:{port}")[0] == 204
        assert studies(port) == []
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=15) == ("", "")
        assert child.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_storage_is_not_in_the_list_of_processes(database: str) -> None:
    with started("sweep.storage=${oc.env:STUDIES}", f"sweep.study={STUDY!r}", STUDIES=database) as (child, port):
        assert studies(port) == [STUDY]
        assert "studies.db" not in Path(f"/proc/{child.pid}/cmdline").read_text()
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=15)[1].strip() == "terminated"
        assert child.returncode == 143


def test_a_missing_study_is_reported_with_the_existing_ones(cli: Cli, home: Path) -> None:
    found = cli("dashboard")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "there is no study in" in found.stderr
    for name in ("a", "b c"):
        optuna.create_study(storage=open_storage(None, name), study_name=name)
    found = cli("dashboard", "sweep.study=d")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "sweep.study=d: " in found.stderr
    assert "expected a or b-c\n" in found.stderr


def test_a_study_missing_in_its_storage_is_reported_with_the_existing_ones(journal: Path, database: str) -> None:
    from mnist_pipeline.sweep import dashboard

    for storage in (str(journal), database):
        with pytest.raises(UserError, match=re.escape(f"{storage}: expected {STUDY}")):
            dashboard.make_app(storage, "other")


@pytest.mark.parametrize(("storage", "reason"), [("/tmp", "is not a file"), ("x" * 300, "there is no such file")])
def test_anything_but_a_file_is_refused(storage: str, reason: str, cli: Cli) -> None:
    found = cli("dashboard", f"sweep.storage={storage}")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert reason in found.stderr


def test_a_damaged_journal_is_reported_and_left_untouched(journal: Path, cli: Cli) -> None:
    damaged = damage(journal, b"text\n")
    found = cli("dashboard", "--port", "0")
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.startswith(f"error: sweep.storage={journal} ")
    assert found.stderr.count("\n") == 1
    assert journal.read_bytes() == damaged


@pytest.mark.parametrize("line", [b'{"a": 1}\n', b"[]\n", b"\xff\xfe\n", b'{"op_code": 0, "stu\n', b"\n", b"\0\n"])
def test_every_damaged_journal_is_a_user_error(line: bytes, journal: Path) -> None:
    from mnist_pipeline.sweep import dashboard

    damaged = damage(journal, line)
    with pytest.raises(UserError, match=re.escape(f"sweep.storage={journal} ")):
        dashboard.make_app(str(journal), None)
    assert journal.read_bytes() == damaged


def damage(journal: Path, line: bytes) -> bytes:
    """Put a line between the first and the others; return what the journal then holds."""
    optuna.load_study(storage=open_storage(None, STUDY), study_name=STUDY).set_user_attr("key", "value")
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, line, *rest]))
    return journal.read_bytes()


def test_the_database_of_another_program_is_left_untouched(home: Path) -> None:
    from mnist_pipeline.sweep import dashboard

    path = home / "mlruns" / "mlflow.db"
    before = tables(path)
    with pytest.raises(UserError, match=re.escape(f"sweep.storage=sqlite:///{path} cannot be opened")):
        dashboard.make_app(f"sqlite:///{path}", None)
    assert tables(path) == before
    missing = home / "missing.db"
    with pytest.raises(UserError, match=re.escape(f"there is no file {missing}")):
        dashboard.make_app(f"sqlite:///{missing}", None)
    assert not missing.exists()


def tables(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master"))
