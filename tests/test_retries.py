"""Several programs at one store: what one of them makes fail for the others is done all the same."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import command, server
from mlflow import MlflowClient

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import retries, store
from mnist_pipeline.tracking.mlflow_run import MlflowRun
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.registered_models import RegisteredModel
from mnist_pipeline.tracking.tracker import RunSpec

NUM_AT_ONCE = 8


@pytest.fixture(scope="module")
def address(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with server(folder / "mlflow.db", folder / "artifacts") as address:
        yield address


@pytest.fixture(params=["sqlite", "server"])
def opened(request: pytest.FixtureRequest, home: Path) -> MlflowStore:
    is_server = request.param == "server"
    uri = request.getfixturevalue("address") if is_server else store.sqlite_uri(home / "mlruns" / "mlflow.db")
    return MlflowStore(TrackingConfig(uri=Address(uri), experiment="unused"))


def test_many_runs_log_the_same_data_at_once(opened: MlflowStore) -> None:
    experiment = opened.require_experiment("races")
    runs = [opened.client.create_run(experiment).info.run_id for _ in range(NUM_AT_ONCE)]
    start = threading.Barrier(NUM_AT_ONCE)
    splits = [Split(np.full((1, 2, 2), number, np.uint8), np.zeros(1, np.uint8)) for number in range(5)]

    def log(run_id: str) -> None:
        run = MlflowRun(opened, experiment_id=experiment, run_id=run_id, is_resumed=False)
        for split in splits:
            start.wait(60)
            for _ in range(2):  # the second time as a resumed run does
                run.log_split(split, name="digits-train", context="train", source="here")

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(log, runs))
    expected = sorted(split.digest[:36] for split in splits)
    for run_id in runs:
        used = opened.client.get_run(run_id).inputs.dataset_inputs
        assert sorted(one.dataset.digest for one in used) == expected


def test_training_does_not_wait_for_the_writes_of_others(home: Path) -> None:
    """Points that meet another thread's write go with the run's next one, at the latest with its end."""
    opened = MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(home / "mlflow.db")), experiment="unused"))
    experiment = opened.require_experiment("busy")

    def make() -> MlflowRun:
        run_id = opened.client.create_run(experiment).info.run_id
        return MlflowRun(opened, experiment_id=experiment, run_id=run_id, is_resumed=False)

    tagged, finished, failed = make(), make(), make()
    with opened.client._turn:
        for run in (tagged, finished, failed):
            for step in (1, 2):
                run.log_metrics({"loss": 0.5 / step}, step=step, timestamp_ms=step)
    assert tagged.list_steps("loss") == set()
    tagged.set_tags({"key": "value"})
    finished.end("FINISHED")
    failed.end("FAILED", why="broken")
    for run in (tagged, finished, failed):
        assert run.list_steps("loss") == {1, 2}
    assert opened.client.get_run(tagged.run_id).data.tags["key"] == "value"
    assert opened.client.get_run(failed.run_id).data.tags["reason"] == "broken"


def test_many_register_and_point_at_once(opened: MlflowStore) -> None:
    """On other machines than this one's lock is for."""
    start = threading.Barrier(NUM_AT_ONCE)
    experiment = opened.require_experiment("races")
    runs = [opened.client.create_run(experiment).info.run_id for _ in range(NUM_AT_ONCE)]
    models = [
        opened.client.create_logged_model(experiment, name="model", source_run_id=run_id).model_id for run_id in runs
    ]

    def register(number: int) -> int:
        model = RegisteredModel(opened, "races-classifier")
        start.wait(60)
        version = model.register(runs[number], models[number])
        start.wait(60)
        model.point("champion", version)
        model.describe("text", tags={"decided": "now"})
        return version

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        versions = list(pool.map(register, range(NUM_AT_ONCE)))
    assert sorted(versions) == list(range(1, NUM_AT_ONCE + 1))
    assert RegisteredModel(opened, "races-classifier").named("champion") in versions


def test_many_create_one_experiment_at_once(opened: MlflowStore) -> None:
    start = threading.Barrier(NUM_AT_ONCE)

    def create(number: int) -> str:
        start.wait(60)
        return opened.require_experiment("new")

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        assert len(set(pool.map(create, range(NUM_AT_ONCE)))) == 1


class Locker:
    """A program that holds a database locked."""

    def __init__(self, database: Path) -> None:
        code = (
            "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "connection.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
        )
        self._child = subprocess.Popen(
            [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"locked\n"

    def release(self) -> None:
        self._child.communicate(timeout=10)


@pytest.fixture
def locker(home: Path) -> Iterator[Locker]:
    held = Locker(home / "mlruns" / "mlflow.db")
    yield held
    held.release()


def test_a_locked_store_is_waited_for(locker: Locker) -> None:
    waiting = subprocess.Popen(command("history"), stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    assert "waiting: " in line
    assert "is locked by another program" in line
    locker.release()
    _, errors = waiting.communicate(timeout=60)
    assert "has no history yet" in errors


@pytest.mark.slow
def test_a_store_that_stays_locked_is_reported(
    locker: Locker, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retries, "LOCK_PATIENCE_SEC", 3.0)
    uri = store.sqlite_uri(home / "mlruns" / "mlflow.db")
    for attempt in (
        lambda: store.check(uri),
        lambda: MlflowStore(TrackingConfig(uri=Address(uri), experiment="unused")),
    ):
        with pytest.raises(UserError, match=r"locked by another program \(database is locked\)") as caught:
            attempt()
        assert "upgrade" not in str(caught.value)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_lock_after_the_check_is_reported_as_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "LOCK_PATIENCE_SEC", 1.0)
    monkeypatch.setattr(store, "require_sound", lambda uri: None)
    database = home / "mlruns" / "mlflow.db"
    held = Locker(database)
    try:
        opened = MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(database)), experiment="unused"))
        for use in (opened.find_experiment, opened.require_experiment):  # one reads without MLflow, one writes
            with pytest.raises(UserError, match=r"locked by another program \(database is locked\)"):
                use("unused")
    finally:
        held.release()


@pytest.mark.slow  # MLflow itself waits for 20 seconds
@pytest.mark.parametrize("is_released", [True, False])
def test_a_lock_in_mid_run(is_released: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = home / "mlruns" / "mlflow.db"
    tracker = MlflowTracker(TrackingConfig(uri=Address(store.sqlite_uri(database)), experiment="locks"))
    monkeypatch.setattr(retries, "LOCK_PATIENCE_SEC", 60.0 if is_released else 1.0)
    told = []
    try:
        with tracker.run(RunSpec(kind="train", name="", description="", params={}, tags={}, resume_id="a" * 32)) as run:
            held = Locker(database)
            timer = threading.Timer(25 if is_released else 70, held.release)
            timer.start()
            run.log_metrics({"train/loss": 0.5}, step=1, timestamp_ms=1)
    except UserError as error:
        told.append(str(error))
        timer.cancel()
        held.release()
    timer.join()
    found = MlflowClient(store.sqlite_uri(database)).get_run(run.run_id)
    if is_released:
        assert not told
        assert (found.info.status, found.data.metrics) == ("FINISHED", {"train/loss": 0.5})
    else:
        assert "locked by another program (database is locked)" in told[0]
        assert found.data.metrics == {}


def run_at_once(arguments: list[list[str]], home: Path) -> list[tuple[int, str]]:
    children = [
        subprocess.Popen(
            command(*one),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "MNIST_PIPELINE_HOME": str(home)},
        )
        for one in arguments
    ]
    outputs = [child.communicate(timeout=600)[0] for child in children]
    return [(child.returncode, output) for child, output in zip(children, outputs, strict=True)]


def statuses(home: Path) -> list[str]:
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as connection:
        found = [status for (status,) in connection.execute("SELECT status FROM runs")]
    connection.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(4))
def test_eight_trainings_on_a_new_store(round_number: int, home: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    ended = run_at_once([["train", "preset=smoke", f"train.seed={seed}"] for seed in range(8)], new)
    assert [code for code, _ in ended] == [0] * 8, ended
    assert statuses(new) == ["FINISHED"] * 8


@pytest.mark.slow
def test_two_sweeps_on_a_new_store(home: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    sweeps = [["sweep", "preset=smoke", f"sweep.study={name}"] for name in "ab"]
    ended = run_at_once(sweeps, new)
    assert [code for code, _ in ended] == [0, 0], ended
    assert set(statuses(new)) == {"FINISHED"}
