import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.tracker import RunSpec


def resolve(*overrides: str) -> str:
    return store.resolve_uri(compose.compose(list(overrides)).tracking)


def test_who_decides_on_the_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve() == f"sqlite:///{home}/mlruns/mlflow.db".replace(" ", "%20")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999")
    assert resolve() == "http://127.0.0.1:5999"
    assert resolve("tracking.uri=sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


def test_artifacts_lie_beside_a_sqlite_store() -> None:
    assert store.artifacts_dir("sqlite:////a/b/mlflow.db") == Path("/a/b/artifacts")
    assert store.artifacts_dir("http://127.0.0.1:5000") is None


def test_artifacts_of_a_database_server_lie_in_the_home_folder(home: Path) -> None:
    assert store.artifacts_dir("postgresql://u@h/db") == home / "mlruns" / "artifacts"


def test_artifacts_of_an_experiment_lie_where_the_configuration_says(home: Path) -> None:
    database = "postgresql://u@h/db"
    usual = (home / "mlruns" / "artifacts" / "digits").as_uri()
    assert store.artifact_location(database, None, experiment="digits") == usual
    assert store.artifact_location(database, "/nfs/team", experiment="digits") == "file:///nfs/team/digits"
    assert store.artifact_location("http://h:1", "s3://bucket/a/", experiment="digits") == "s3://bucket/a/digits"
    assert store.artifact_location("http://h:1", None, experiment="digits") is None
    with pytest.raises(ConfigError, match=r"tracking\.artifact_location"):
        compose.compose(["tracking.artifact_location='s3://key:secret@bucket/a'"])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("./mlruns", "expected sqlite:///PATH"),
        ("file:///tmp/x", "expected sqlite:///PATH"),
        ("foo://bar", "expected sqlite:///PATH"),
        ("sqlite://", "a SQLite store needs a file"),
        ("sqlite:///:memory:", "a SQLite store needs a file"),
        ("postgresql+nope", "expected sqlite:///PATH"),
    ],
)
def test_an_unknown_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.check(uri)


def test_a_file_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all")
    with pytest.raises(ConfigError, match="is not a SQLite database"):
        store.check(f"sqlite:///{tmp_path}/text.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        store.check(f"sqlite:///{tmp_path}/folder.db")


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b", "a#b", "\u00fc"])
def test_a_store_may_lie_anywhere(name: str, tmp_path: Path) -> None:
    database = tmp_path / name / "mlflow.db"
    store.create(store.sqlite_uri(database))
    assert has_experiments(database)


def test_a_path_that_mlflow_cannot_handle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot keep artifacts under a path with a %"):
        store.check(store.sqlite_uri(tmp_path / "100%" / "mlflow.db"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:port", "http://a b", "http://"])
def test_a_malformed_address_is_reported(address: str) -> None:
    with pytest.raises(UserError, match="no MLflow server answers"):
        store.check(address)


def creator(uri: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"from mnist_pipeline.tracking import store; store.create({uri!r})"])


def has_experiments(database: Path) -> bool:
    with sqlite3.connect(database) as connection:
        found = connection.execute("select count(*) from sqlite_master where name = 'experiments'").fetchone()
    connection.close()
    return bool(found[0])


def test_many_commands_at_once_create_one_store(tmp_path: Path) -> None:
    database = tmp_path / "new" / "mlflow.db"
    children = [creator(f"sqlite:///{database}") for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert has_experiments(database)
    assert sorted(path.name for path in database.parent.iterdir()) == [".mnist-pipeline-mlflow.db.lock", "mlflow.db"]


def test_after_a_kill_during_creation_the_next_command_creates_the_store(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    child = creator(f"sqlite:///{database}")
    unfinished = tmp_path / ".mnist-pipeline-mlflow.db.unfinished"
    deadline = time.monotonic() + 60
    while not unfinished.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    assert not database.exists()
    store.create(f"sqlite:///{database}")
    assert has_experiments(database)
    assert not unfinished.exists()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "history.sqlite"
    with sqlite3.connect(database) as connection:
        connection.executescript("CREATE TABLE studies (name); CREATE TABLE alembic_version (version_num)")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(ConfigError, match=r"another program, with tables such as alembic_version, studies"):
        store.begin(store.sqlite_uri(database))
    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


def test_no_file_of_the_user_is_emptied(tmp_path: Path) -> None:
    theirs = [tmp_path / name for name in ("requirements.lock", "requirements.unfinished")]
    for path in theirs:
        path.write_text("mine")
    store.create(store.sqlite_uri(tmp_path / "requirements"))
    assert [path.read_text() for path in theirs] == ["mine", "mine"]


NEWER = r"newer than the installed one: upgrade the package mlflow"
OLDER = r"of an older MLflow: run mnist-pipeline doctor --fix, which upgrades it"


@pytest.mark.parametrize(
    ("revision", "is_whole", "expected"),
    [
        ("ffffffffffff", True, NEWER),
        ("ffffffffffff", False, NEWER),
        ("0584bdc529eb", True, OLDER),
        ("0584bdc529eb", False, OLDER),  # MLflow would upgrade it by itself, without a copy
    ],
)
def test_a_schema_of_another_version(
    revision: str, is_whole: bool, expected: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database = home / "mlruns" / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        if not is_whole:
            connection.execute("DROP TABLE job_locks")
    connection.close()
    with pytest.raises(UserError, match=expected) as caught:
        MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(database)), experiment="unused"))
    assert "mnist-pipeline doctor" in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_is_named_as_the_cause(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    database = home / "mlruns" / "mlflow.db"
    tracker = MlflowTracker(TrackingConfig(uri=Address(store.sqlite_uri(database)), experiment="full"))

    def fill(connection: sqlite3.Connection, record: object, proxy: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite then answers as on a full disk

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "checkout", fill)
    try:
        with pytest.raises(UserError) as caught:
            start_run(tracker)
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "checkout", fill)
    assert "(database or disk is full)" in str(caught.value)
    assert "upgrade" not in str(caught.value)
    assert capfd.readouterr().err == ""


def start_run(tracker: MlflowTracker) -> None:
    tags = {f"tag {number}": "x" * 5000 for number in range(50)}
    with tracker.run(RunSpec(kind="train", name="", description="", params={}, tags=tags, resume_id="a" * 32)):
        pass


def test_a_folder_that_cannot_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="set MNIST_PIPELINE_HOME to"):
        store.begin(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_dead_server_is_reported_at_once() -> None:
    with pytest.raises(UserError, match=r"no MLflow server answers at http://127.0.0.1:9 .*refused"):
        store.begin("http://127.0.0.1:9")


def test_a_server_that_never_answers_is_reported_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SERVER_TIMEOUT_SEC", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(UserError, match="no MLflow server answers"):
            store.begin(f"http://127.0.0.1:{listener.getsockname()[1]}")
        accepted, _ = listener.accept()
        accepted.close()


def test_a_page_that_is_not_a_server_is_reported() -> None:
    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(UserError, match=r"no MLflow server answers.*Not Found"):
            store.begin(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
