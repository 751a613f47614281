"""PostgreSQL as the tracking store and as the storage of a study."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import psycopg
import pytest
from conftest import Cli, command
from mlflow import MlflowClient
from postgresql import PostgreSQL
from sweep_home import ALONE, SMOKE, Recorder, Trials, outcome, require_whole, runs, sweep_here

from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.sweep import ownership, storage
from mnist_pipeline.system.errors import ConfigError, TakenOverError, UserError
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.absence import is_away
from mnist_pipeline.tracking.record import Point


@pytest.fixture
def database(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    name = "".join(sign if sign.isalnum() else "_" for sign in request.node.name.lower())[-40:]
    return postgresql.create_database(f"of_{name}")


def in_database(url: str, *overrides: str) -> list[str]:
    return [*ALONE, f"sweep.storage={url}", *overrides]


def test_the_driver_of_a_tracking_store_is_named_with_the_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"mnist-pipeline\[cluster\]"):
        store.check("postgresql://me@127.0.0.1:9/x")


@pytest.mark.slow
def test_artifacts_are_kept_in_the_home(database: str, cli: Cli, home: Path, tmp_path: Path) -> None:
    found = cli("train", "preset=smoke", "train.num_epochs=1", f"tracking.uri={database}")
    assert found.returncode == 0, found.stderr
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    folder = Path(unquote(urlparse(run.info.artifact_uri).path))
    assert folder.is_relative_to(home / "mlruns" / "artifacts")
    assert (folder / "evaluate" / "predictions.parquet").is_file()
    assert list((tmp_path / "current").iterdir()) == []
    shown = cli("report", run.info.run_id, "data=digits", f"tracking.uri={database}")
    assert shown.returncode == 0, shown.stderr


def test_a_database_that_restarts_again_and_again_changes_nothing(
    postgresql: PostgreSQL, database: str, home: Path, uninterrupted_sweep: Trials
) -> None:
    restarted: list[str] = []

    def restart(name: str, point: Point) -> None:
        if point.number == 1 and name in ("trial 1", "trial 3", "trial 6"):
            restarted.append(name)
            postgresql.stop()
            threading.Timer(1.0, postgresql.start).start()

    tracking = postgresql.create_database("tracking_that_restarts")
    result = sweep_here(*in_database(database, f"tracking.uri={tracking}"), recorder=Recorder(restart))
    assert len(restarted) == 3
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study, client=MlflowClient(tracking))


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_done",
    [pytest.param(False, id="lost request"), pytest.param(True, id="lost answer")],
)
def test_any_write_to_a_database_can_be_lost(
    is_done: bool, database: str, home: Path, uninterrupted_sweep: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = psycopg.Connection.commit
    num_commits = num_lost = 0

    def lose(connection: psycopg.Connection[Any]) -> None:
        nonlocal num_commits, num_lost
        num_commits += 1
        is_lost = num_commits > 40 and num_commits % 3 == 0  # the first ones create the tables
        num_lost += is_lost
        if is_done or not is_lost:
            commit(connection)
        if is_lost:
            connection.close()
            raise psycopg.OperationalError("the answer is lost")

    monkeypatch.setattr(psycopg.Connection, "commit", lose)
    result = sweep_here(*in_database(database))
    monkeypatch.undo()
    assert num_lost > 15
    # Where the answer to the last trial's creation is lost, Optuna has made one more, which is trained too.
    assert outcome(result.study)[: len(uninterrupted_sweep)] == uninterrupted_sweep
    assert len(outcome(result.study)) <= len(uninterrupted_sweep) + 1


@pytest.mark.slow
def test_a_database_that_stays_away_ends_the_sweep_and_the_same_command_resumes(
    postgresql: PostgreSQL, database: str, home: Path, uninterrupted_sweep: Trials
) -> None:
    def stop(name: str, point: Point) -> None:
        if name == "trial 2":
            postgresql.stop()

    try:
        with pytest.raises(TakenOverError, match=r"sweep\.patience_sec"):
            sweep_here(*in_database(database, "sweep.patience_sec=1"), recorder=Recorder(stop))
    finally:
        postgresql.stop()
        postgresql.start()
    result = sweep_here(*in_database(database))
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


def test_ctrl_c_ends_the_wait_for_a_database(postgresql: PostgreSQL, database: str, home: Path) -> None:
    stop = StopRequest()

    def leave(name: str, point: Point) -> None:
        if name == "trial 1":
            postgresql.stop()
            threading.Timer(2.0, stop.set, [KeyboardInterrupt()]).start()

    try:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            sweep_here(*in_database(database), recorder=Recorder(leave), stop=stop)
        assert time.monotonic() - began < 60
    finally:
        postgresql.stop()
        postgresql.start()


class Other:
    """Somebody else's hold of the lock of a study, as another machine's."""

    def __init__(self, url: str, study: str) -> None:
        self._key = ownership._key(study)
        self._connection = psycopg.connect(url, autocommit=True, application_name="mnist-pipeline 12 1700000000 other")

    def take(self) -> bool:
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()
        return bool(row and row[0])

    def end_owner(self) -> None:
        """Cut the connection of whoever has the lock, and take it at once."""
        self._connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        while not self.take():
            time.sleep(0.01)

    def release(self) -> None:
        self._connection.close()


@pytest.fixture
def other(database: str) -> Iterator[Other]:
    found = Other(database, "s")
    yield found
    found.release()


def test_a_study_that_another_machine_carries_out_is_refused_by_its_name(
    database: str, home: Path, other: Other
) -> None:
    assert other.take()
    with pytest.raises(UserError, match=r"process 12 on other since .* on 2023-11-1"):
        sweep_here(*in_database(database))


def test_wait_waits_for_another_machine(database: str, home: Path, other: Other) -> None:
    assert other.take()
    threading.Timer(2.0, other.release).start()
    began = time.monotonic()
    sweep_here(*in_database(database, "sweep.num_trials=1", "wait=true"))
    assert time.monotonic() - began > 2


def test_a_lost_lock_is_taken_again(postgresql: PostgreSQL, database: str, home: Path) -> None:
    lost: list[str] = []

    def lose(name: str, point: Point) -> None:
        if not lost:
            lost.append(name)
            postgresql.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    study = sweep_here(*in_database(database, "sweep.num_trials=2"), recorder=Recorder(lose)).study
    assert lost == ["trial 0"]
    require_whole(home, study)


@pytest.mark.parametrize("has_ended", [False, True], ids=["still there", "ended since"])
def test_who_loses_a_study_to_another_machine_writes_nothing_more(
    has_ended: bool, database: str, home: Path, other: Other
) -> None:
    def take_over(name: str, point: Point) -> None:
        if name == "trial 1":
            other.end_owner()
            if has_ended:  # with its own claim in the study, as every command leaves it
                with psycopg.connect(database, autocommit=True) as connection:
                    connection.execute("UPDATE study_user_attributes SET value_json = '\"x\"' WHERE key = 'owner'")
                other.release()

    with pytest.raises(TakenOverError):
        sweep_here(*in_database(database), recorder=Recorder(take_over))
    first, second = runs(home, "trial")
    assert (first.info.status, second.info.status) == ("FINISHED", "RUNNING")  # the other goes on with it
    assert [run.info.status for run in runs(home, "sweep")] == ["RUNNING"]


def test_one_owner_of_a_study_in_a_file_of_two_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(tmp_path / "one"))
    patience = Patience("it", 1, key="k", is_away=is_away)

    def own(address: str, study: str) -> Any:
        return ownership.own(Address(address), study, wait=False, on_wait=lambda: None, patience=patience)

    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for given in (f"{tmp_path}/studies.journal", f"sqlite:///{tmp_path}/studies.db"):
        with own(given, "s"):
            monkeypatch.setenv("MNIST_PIPELINE_HOME", str(tmp_path / "two"))
            with pytest.raises(UserError, match="in use"), own(given.replace(str(tmp_path), f"{tmp_path}/link"), "s"):
                pass
            with own(given, "another"):
                pass
            monkeypatch.setenv("MNIST_PIPELINE_HOME", str(tmp_path / "one"))


@pytest.mark.parametrize("url", ["mysql://u@h/d", "postgresql+pg8000://u@h/d", "oracle://u@h/d"])
def test_a_database_in_which_nobody_owns_a_study_is_refused(url: str, home: Path, cli: Cli) -> None:
    with pytest.raises(ConfigError, match="one command at a time"):
        storage.check(url)
    assert cli("sweep", "preset=smoke", f"sweep.storage={url}").returncode == 2


@pytest.mark.slow
def test_two_commands_from_two_homes(database: str, home: Path, tmp_path: Path, empty_store: Path) -> None:
    """The second is refused while the first runs; killed with SIGKILL, the first leaves the study free at once."""
    words = command("sweep", *SMOKE, f"sweep.storage={database}", "sweep.num_trials=40")
    first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("trial 1"):
            break
    second_home = tmp_path / "second"
    (second_home / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, second_home / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(second_home))
        with pytest.raises(UserError, match=f"process {first.pid} on"):
            sweep_here(*in_database(database))
        first.kill()
        first.communicate()
        sweep_here(*in_database(database))


def test_a_driver_that_is_not_installed_is_named_with_the_extra(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"mnist-pipeline\[cluster\]"):
        sweep_here(*in_database("postgresql://me@127.0.0.1:9/x"))
