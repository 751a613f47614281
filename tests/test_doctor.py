"""`doctor`: everything that it finds, what it does about it, and what it leaves alone."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command as alembic
from alembic.config import Config as AlembicConfig
from conftest import Cli
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.doctor import examination
from mnist_pipeline.doctor.finding import Finding, Remedy, show_age, show_bytes
from mnist_pipeline.registry import changes
from mnist_pipeline.registry.ledger import Outcome
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.system import locks, processes
from mnist_pipeline.system.processes import Process
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import runs, sqlite_store, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Kind, Tag
from mnist_pipeline.tracking.tracker import RunSpec

KILL_AT = str(Path(__file__).with_name("kill_at.py"))
MODEL = "digits-classifier"
DAY_MS = 86_400_000


def database_in(home: Path) -> Path:
    return home / "mlruns" / "mlflow.db"


def config_of(home: Path) -> TrackingConfig:
    return TrackingConfig(uri=Address(store.sqlite_uri(database_in(home))), experiment="digits")


def open_store(home: Path) -> MlflowStore:
    return MlflowStore(config_of(home))


def examine(home: Path, remedy: Remedy | None = None) -> list[Finding]:
    before = list(examination.examine_database(store.sqlite_uri(database_in(home))))
    found = before or list(examination.examine(open_store(home)))
    return [finding for finding in found if remedy in (None, finding.remedy)]


def treat(home: Path, *remedies: Remedy) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    tally = examination.Tally()
    uri = store.sqlite_uri(database_in(home))
    examination.treat(
        examination.examine_database(uri), remedies, tally, show=lambda state, line: shown.append((state, line))
    )
    examination.treat(
        examination.examine(open_store(home)), remedies, tally, show=lambda state, line: shown.append((state, line))
    )
    return shown


def leave_running(home: Path, process: Process | None, **tags: str) -> str:
    """Leave a run as a command that was killed does."""
    tracker = MlflowTracker(config_of(home))
    with (
        contextlib.suppress(ZeroDivisionError),
        tracker.run(
            RunSpec(kind=Kind.TRAIN, name="left", description="", params={}, tags=tags, resume_id="c" * 32)
        ) as run,
    ):
        run_id = run.run_id
        raise ZeroDivisionError
    client = MlflowClient(store.sqlite_uri(database_in(home)))
    client.update_run(run_id, status="RUNNING")
    if process is None:
        client.delete_tag(run_id, Tag.PROCESS)
    else:
        client.set_tag(run_id, Tag.PROCESS, process.to_json())
    return run_id


def status_of(home: Path, run_id: str) -> str:
    status: str = MlflowClient(store.sqlite_uri(database_in(home))).get_run(run_id).info.status
    return status


@pytest.fixture
def dead() -> Process:
    code = "from mnist_pipeline.system import processes; print(processes.current().to_json())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known = processes.read(done.stdout)
    assert known is not None
    return known


@pytest.fixture
def stopped() -> Iterator[Process]:
    """A process that lives, but was stopped."""
    code = "from mnist_pipeline.system import processes; print(processes.current().to_json(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        known = processes.read(child.stdout.readline())
        assert known is not None
        os.kill(child.pid, signal.SIGSTOP)
        yield known
        child.kill()


def test_a_run_of_a_dead_process_is_closed_and_resumed_by_the_same_command(home: Path, dead: Process) -> None:
    run_id = leave_running(home, dead)
    (finding,) = examine(home)
    assert finding.remedy is Remedy.fix
    assert status_of(home, run_id) == "RUNNING"
    treat(home, Remedy.fix)
    assert status_of(home, run_id) == "KILLED"
    assert examine(home) == []
    spec = RunSpec(kind=Kind.TRAIN, name="left", description="", params={}, tags={}, resume_id="c" * 32)
    with MlflowTracker(config_of(home)).run(spec) as run:
        assert (run.run_id, run.is_resumed) == (run_id, True)
    assert status_of(home, run_id) == "FINISHED"


def test_a_run_of_a_living_process_is_left_alone_even_if_that_is_stopped(home: Path, stopped: Process) -> None:
    run_id = leave_running(home, stopped)
    assert examine(home) == []
    treat(home, Remedy.fix, Remedy.prune)
    assert status_of(home, run_id) == "RUNNING"


def test_a_run_of_another_machine_is_named_and_counts_as_abandoned_after_a_week(home: Path, dead: Process) -> None:
    elsewhere = dataclasses.replace(dead, host="elsewhere")
    run_id = leave_running(home, elsewhere)
    (finding,) = examine(home)
    assert (finding.remedy, "elsewhere" in finding.what) == (Remedy.none, True)
    with sqlite3.connect(database_in(home)) as connection:
        connection.execute("UPDATE runs SET start_time = start_time - ?", (8 * DAY_MS,))
    connection.close()
    (finding,) = examine(home)
    assert finding.remedy is Remedy.fix
    MlflowClient(store.sqlite_uri(database_in(home))).log_metric(run_id, "train/loss", 0.1, step=1)
    (finding,) = examine(home)  # it has given a sign
    assert finding.remedy is Remedy.none


def test_a_run_of_an_earlier_version_is_known_by_its_lock(home: Path) -> None:
    run_id = leave_running(home, None, fingerprint="f" * 64)
    lock = home / "mlruns" / "checkpoints" / f"{'f' * 64}.lock"
    lock.parent.mkdir(exist_ok=True)
    with locks.hold(lock, what="it", wait=False, next_step=""):
        assert examine(home, Remedy.fix) == []
    treat(home, Remedy.fix)
    assert status_of(home, run_id) == "KILLED"


def test_a_run_that_was_resumed_since_is_left_alone(home: Path, dead: Process) -> None:
    run_id = leave_running(home, dead)
    opened = open_store(home)
    (run,) = runs.list_open(opened)
    opened.client.set_tag(run_id, Tag.PROCESS, processes.current().to_json())
    assert not runs.abandon(opened, run, why="dead")
    assert status_of(home, run_id) == "RUNNING"


def test_runs_of_other_programs_are_left_alone(home: Path) -> None:
    client = MlflowClient(store.sqlite_uri(database_in(home)))
    run = client.create_run(client.create_experiment("theirs"))
    assert examine(home) == []
    treat(home, Remedy.fix, Remedy.prune)
    assert status_of(home, run.info.run_id) == "RUNNING"


@pytest.fixture
def copied(champion_home: Path, home: Path) -> Path:
    """A home with a champion that may be changed."""
    shutil.rmtree(home)
    shutil.copytree(champion_home, home)
    sqlite_store.repair(database_in(home))
    return home


def test_a_whole_store_has_nothing_to_repair_and_nothing_is_written(copied: Path, cli: Cli) -> None:
    def digest() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    before = digest()
    result = cli("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert digest() == before


def entries_of(home: Path) -> list[Outcome | None]:
    return [entry.outcome for entry in Registry(open_store(home), MODEL).ledger.entries()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ledger.to", "x"),
        pytest.param("ledger.outcome", "won", marks=pytest.mark.slow),
        pytest.param("ledger.comparison", "{", marks=pytest.mark.slow),
    ],
)
def test_an_entry_that_no_command_can_read_is_set_aside(key: str, value: str, copied: Path, cli: Cli) -> None:
    (entry,) = Registry(open_store(copied), MODEL).ledger.entries()
    open_store(copied).client.set_tag(entry.id, key, value)
    broken = cli("history", "data=digits")
    assert broken.returncode == 1
    assert "mnist-pipeline doctor --fix" in broken.stderr
    treat(copied, Remedy.fix)
    assert entries_of(copied) == [Outcome.moved]  # as the alias says
    assert cli("history", "data=digits").returncode == 0
    assert examine(copied) == []


def test_an_alias_that_was_moved_by_hand_is_recorded(copied: Path) -> None:
    open_store(copied).client.delete_registered_model_alias(MODEL, "champion")
    (finding,) = examine(copied)
    assert finding.remedy is Remedy.fix
    treat(copied, Remedy.fix)
    assert entries_of(copied) == [Outcome.promoted, Outcome.moved]
    assert examine(copied) == []


def test_an_entry_that_a_killed_command_left_open_is_closed(copied: Path) -> None:
    registry = Registry(open_store(copied), MODEL)
    with changes.alone(registry, wait=False):
        registry.ledger.open()
    (finding,) = examine(copied)
    assert finding.remedy is Remedy.fix
    treat(copied, Remedy.fix)
    assert entries_of(copied) == [Outcome.promoted, Outcome.interrupted]


def test_an_open_entry_of_another_machine_is_named(copied: Path) -> None:
    registry = Registry(open_store(copied), MODEL)
    registry.ledger.lock_id = "of another machine"
    registry.ledger.open()
    (finding,) = examine(copied)
    assert finding.remedy is Remedy.none
    treat(copied, Remedy.fix, Remedy.prune)
    assert len([entry for entry in registry.ledger.entries() if entry.is_open]) == 1


def delete(home: Path, run_id: str) -> None:
    MlflowClient(store.sqlite_uri(database_in(home))).delete_run(run_id)


def test_a_deleted_run_is_removed_but_not_one_that_is_needed(copied: Path, dead: Process) -> None:
    opened = open_store(copied)
    needed = str(opened.client.get_model_version(MODEL, "1").run_id)
    other = leave_running(copied, dead)
    delete(copied, needed)
    delete(copied, other)
    folder = Path(opened.client.get_run(other).info.artifact_uri.removeprefix("file://").replace("%20", " "))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("x")
    assert sorted(finding.remedy.name for finding in examine(copied)) == ["none", "prune"]
    treat(copied, Remedy.fix)
    assert runs.get(opened, other) is not None
    treat(copied, Remedy.prune)
    assert runs.get(opened, other) is None
    assert not folder.exists()
    spared = runs.get(opened, needed)
    assert spared is not None
    assert len(spared.read("evaluate/predictions.parquet")) > 0
    assert [finding.remedy for finding in examine(copied)] == [Remedy.none]


def test_a_deleted_run_goes_with_its_model(copied: Path) -> None:
    opened = open_store(copied)
    run_id = str(opened.client.get_model_version(MODEL, "1").run_id)
    (model,) = opened.client.search_logged_models(["1"])
    opened.client.delete_registered_model(MODEL)
    for entry in Registry(opened, MODEL).ledger.entries():  # as if it had never been promoted
        opened.client.delete_experiment(opened.client.get_run(entry.id).info.experiment_id)
    delete(copied, run_id)
    treat(copied, Remedy.prune)
    assert runs.get(opened, run_id) is None
    assert opened.client.search_logged_models(["1"]) == []
    assert not Path(model.artifact_location.removeprefix("file://").replace("%20", " ")).exists()


def checkpoints_of(home: Path, name: str, resume_id: str) -> Path:
    folder = home / "mlruns" / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "id").write_text(resume_id)
    (folder / "epoch-1.checkpoint").write_bytes(b"x" * 1000)
    return folder


def test_checkpoints_that_no_run_resumes_from_are_pruned(home: Path, dead: Process) -> None:
    waiting = checkpoints_of(home, "a" * 64, "c" * 32)
    orphaned = checkpoints_of(home, "b" * 64, "d" * 32)
    held = checkpoints_of(home, "e" * 64, "e" * 32)
    run_id = leave_running(home, dead)
    with locks.hold(held.with_suffix(".lock"), what="it", wait=False, next_step=""):
        treat(home, Remedy.fix, Remedy.prune)
        assert (waiting.exists(), orphaned.exists(), held.exists()) == (True, False, True)
        MlflowClient(store.sqlite_uri(database_in(home))).set_terminated(run_id, "FINISHED")
        treat(home, Remedy.prune)
        assert (waiting.exists(), held.exists()) == (False, True)


def test_damaged_caches_unfinished_files_and_orphaned_locks_are_removed(home: Path) -> None:
    folder = home / "mlruns" / "cache"
    folder.mkdir()
    np.savez(folder / f"{'a' * 32}-{'b' * 32}.npz", learn_images=np.zeros(3))
    old, new = home / "mlruns" / ".old.unfinished", folder / ".new.unfinished"
    for file in (old, new):
        file.write_text("x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    (home / "mlruns" / "checkpoints").mkdir(exist_ok=True)
    lock = home / "mlruns" / "checkpoints" / f"{'a' * 64}.lock"
    lock.touch()
    assert len(examine(home, Remedy.fix)) == 3
    treat(home, Remedy.fix)
    assert [path.name for path in folder.iterdir()] == [new.name]
    assert not old.exists()
    assert not lock.exists()
    assert examine(home) == []


ENTRY = json.dumps({"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [2]})


def test_a_damaged_journal_is_cut_and_kept(home: Path, cli: Cli) -> None:
    journal = home / "mlruns" / "optuna" / "s.journal"
    journal.parent.mkdir()
    damaged = f"{ENTRY}\n\x00\x00garbage\n{ENTRY}\n".encode()
    journal.write_bytes(damaged)
    refused = cli("dashboard", "sweep.study=s")
    assert (refused.returncode, "mnist-pipeline doctor --fix" in refused.stderr) == (1, True)
    with locks.hold(journal.with_suffix(".lock"), what="it", wait=False, next_step=""):
        assert ("failed", damaged) == (treat(home, Remedy.fix)[0][0], journal.read_bytes())
    treat(home, Remedy.fix)
    assert journal.read_text() == f"{ENTRY}\n"
    (kept,) = journal.parent.glob("*.damaged-*")
    assert kept.read_bytes() == damaged
    assert examine(home, Remedy.fix) == []


def downgrade(database: Path) -> str:
    """Bring a store to the schema before the newest, as an older MLflow would have left it; return its revision."""
    database.unlink()
    config: AlembicConfig = _get_alembic_config(store.sqlite_uri(database).replace("%20", " "))
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(config)
    revision = str(script.get_revision(str(script.get_current_head())).down_revision)
    empty = database.with_name("made.db")
    with sqlite3.connect(empty):
        pass
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = create_sqlalchemy_engine(f"sqlite:///{empty}")
    Base.metadata.create_all(engine)
    engine.dispose()
    alembic.upgrade(_get_alembic_config(f"sqlite:///{empty}"), revision)
    with sqlite3.connect(empty) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (7, 'old', 'x', "
            "'active')"
        )
    connection.close()
    empty.rename(database)
    return revision


@pytest.mark.slow
def test_an_older_schema_is_upgraded_and_a_copy_is_kept(home: Path, cli: Cli) -> None:
    database = database_in(home)
    revision = downgrade(database)
    before = database.read_bytes()
    assert cli("compare").returncode == 1
    looked = cli("doctor")
    assert (looked.returncode, database.read_bytes() == before) == (1, True)
    assert revision in looked.stdout
    assert cli("doctor", "--fix").returncode == 0
    assert open_store(home).client.get_experiment("7").name == "old"
    (kept,) = database.parent.glob("*.schema-*")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    connection.close()


def test_a_newer_schema_names_the_mlflow_that_it_needs(copied: Path, cli: Cli) -> None:
    with sqlite3.connect(database_in(copied)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        (location,) = connection.execute("SELECT artifact_uri FROM runs WHERE name LIKE 'digits-%'").fetchone()
    connection.close()
    versions = sqlite_store.folder_of(location) / "environment/versions.json"  # type: ignore[operator]
    versions.write_text(json.dumps({"mlflow": "99.1"}))
    result = cli("doctor", "--fix")
    assert result.returncode == 1
    assert "mlflow to 99.1" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "call mnist_pipeline.tracking.runs abandon 1 before",
        "call mnist_pipeline.tracking.runs abandon 1 after",
        "call mlflow.tracking.client MlflowClient.set_tag 1 after",
        "call mnist_pipeline.registry.changes carry_out 1 before",
        "call mnist_pipeline.registry.ledger Ledger.open 1 after",
        "call mnist_pipeline.registry.ledger Ledger.decide 1 after",
        "call mnist_pipeline.tracking.deletion delete_for_good 1 before",
        "call mnist_pipeline.tracking.deletion get_artifact_repository 1 after",
        "call mnist_pipeline.tracking.deletion get_artifact_repository 2 after",
        "call mnist_pipeline.tracking.deletion delete_for_good 1 after",
        "call mnist_pipeline.doctor.leftovers _unlink 1 after",
    ],
)
def test_a_killed_repair_can_be_repeated(moment: str, copied: Path, dead: Process) -> None:
    left = leave_running(copied, dead)
    opened = open_store(copied)
    opened.client.delete_registered_model_alias(MODEL, "champion")
    gone = opened.client.create_run("1", tags={Tag.KIND: Kind.TRAIN}).info.run_id
    delete(copied, gone)
    unfinished = copied / "mlruns" / ".a.unfinished"
    unfinished.write_text("x")
    os.utime(unfinished, (0, 0))
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(copied)}
    command: list[Any] = [sys.executable, KILL_AT, moment, "doctor", "--fix", "--prune"]
    subprocess.run(command, env=environment, start_new_session=True, check=False, capture_output=True, timeout=120)
    treat(copied, Remedy.fix, Remedy.prune)
    assert status_of(copied, left) == "KILLED"
    assert runs.get(open_store(copied), gone) is None
    assert not unfinished.exists()
    assert entries_of(copied)[0] is Outcome.promoted
    assert entries_of(copied)[-1] is Outcome.moved
    assert [finding for finding in examine(copied) if finding.remedy is not Remedy.none] == []


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (5e9, "5.0 GB")])
def test_bytes_are_shown_as_a_person_reads_them(number: int, text: str) -> None:
    assert show_bytes(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(5, "less than a minute"), (60, "1 minute"), (7300, "2 hours")])
def test_ages_are_shown_as_a_person_reads_them(seconds: float, text: str) -> None:
    assert show_age(seconds) == text
