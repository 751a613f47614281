"""Sweeps on digits in this process or in a child, and what they leave."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import command
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowEntity
from optuna.trial import TrialState

from mnist_pipeline.config import compose
from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.sweep.sweep import SweepResult, open_tracker, sweep
from mnist_pipeline.sweep.trainings import Ending
from mnist_pipeline.system import paths
from mnist_pipeline.tracking.record import Point

KILL_AT = str(Path(__file__).with_name("kill_at.py"))
SMOKE = ["preset=smoke", "sweep.study=s", "sweep.confirm=null"]
ALONE = [*SMOKE, "sweep.num_workers=1"]

Trials = list[tuple[Any, ...]]


class Recorder:
    """Records the progress of a sweep, and may act on it."""

    def __init__(self, on_epoch: Callable[[str, Point], None] | None = None) -> None:
        self.endings: list[tuple[str, Ending]] = []
        self.epochs: list[tuple[str, int]] = []
        self.executors: set[int] = set()
        self._on_epoch = on_epoch
        self._lock = threading.Lock()

    def begin(self, *, stage: str, num_done: int, num_total: int, best: float | None = None) -> None:
        pass

    def wait(self, what: str | None) -> None:
        pass

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        with self._lock:
            self.executors.add(executor)
            self.epochs.append((name, point.number))
        if self._on_epoch:
            self._on_epoch(name, point)

    def finish(self, executor: int, *, name: str, ending: Ending, detail: str, value: float | None) -> None:
        with self._lock:
            self.endings.append((name, ending))


def sweep_here(*overrides: str, recorder: Recorder | None = None, stop: StopRequest | None = None) -> SweepResult:
    """Do in this process what the command does; it saves the imports."""
    base, config = settings.compose_sweep(overrides)
    request = prepare(base, overrides, compose_with_data=partial(compose.compose_with_data, schema=settings.SWEEP))
    recorder, stop = recorder or Recorder(), stop or StopRequest()
    return sweep(request, config, open_tracker(request, config, recorder, stop), progress=recorder, stop=stop)


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")


def runs(home: Path, kind: str, *, client: MlflowClient | None = None) -> list[MlflowEntity]:
    client = client or client_of(home)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", order_by=["start_time ASC"])
    return list(found)


def outcome(study: Study) -> Trials:
    return [
        (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values) for trial in study.trials()
    ]


def read_study(home: Path) -> Study:
    """Open the study that a command has made."""
    _, config = settings.compose_sweep(ALONE)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal_path("s"))))
    identity = json.loads(optuna.load_study(study_name="s", storage=storage).user_attrs["identity"])
    return Study(config, name="s", identity=identity, max_epochs=4)


def require_whole(home: Path, study: Study, *, client: MlflowClient | None = None) -> None:
    """Every trial has exactly one run, closed, with each of its points once; nothing else is left."""
    client = client or client_of(home)
    (parent,) = runs(home, "sweep", client=client)
    assert parent.info.status == "FINISHED"
    trials = runs(home, "trial", client=client)
    children = {int(run.data.tags["trial.number"]): run for run in trials}
    assert len(children) == len(trials)
    assert sorted(children) == [trial.number for trial in study.trials()]
    for trial in study.trials():
        run = children[trial.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["trial.state"] == trial.state.name
        assert run.info.status == ("FAILED" if trial.state is TrialState.FAIL else "FINISHED")
        points = client.get_metric_history(run.info.run_id, "validation/accuracy")
        assert [(point.step, point.value) for point in points] == list(trial.intermediate_values.items())
        assert all(run.data.params[key] == str(value) for key, value in study.space.clean(trial.params).items())
    assert list(paths.checkpoints_dir().glob("*/*")) == []


@pytest.fixture(scope="session")
def uninterrupted_sweep(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Trials:
    """What eight trials by one worker come to when nobody disturbs them."""
    home = tmp_path_factory.mktemp("uninterrupted")
    (home / "mlruns").mkdir()
    shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for whoever comes after
        study = sweep_here(*ALONE).study
        require_whole(home, study)
        return outcome(study)


def start_sweep(*overrides: str, moment: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, KILL_AT, moment, "sweep", *overrides] if moment else command("sweep", *overrides)
    return subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` has begun, and theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in descendants(child)]


def own_workers() -> list[int]:
    """Return the workers of this process: what its server has forked."""
    servers = [pid for pid in descendants(os.getpid()) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [pid for server in servers for pid in descendants(server)]
