"""Runs that are killed, and everything that a run leaves."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import pandas as pd
import pytest
from conftest import command
from mlflow import MlflowClient

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.pipeline.run import RunResult
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import integrity
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.train.epochs import Epoch

SMOKE = ["train", "preset=smoke", "train.num_epochs=4"]
KILL_AT = str(Path(__file__).with_name("kill_at.py"))


def uri(home: Path) -> str:
    return f"sqlite:///{home}/mlruns/mlflow.db"


def kill_at(moment: str, arguments: list[str] = SMOKE) -> None:
    child = subprocess.Popen(
        [sys.executable, KILL_AT, moment, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.wait(120) == -signal.SIGKILL, f"{moment} never came"


def kill_after(seconds: float) -> None:
    child = subprocess.Popen(
        command(*SMOKE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(seconds)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(10)


@dataclass
class EndState:
    """Everything that a run leaves which must not depend on interruptions; times and names given by chance left out."""

    params: dict[str, str]
    tags: dict[str, str]
    points: dict[str, list[tuple[int, float]]]
    inputs: list[tuple[str, str]]
    files: dict[str, str]
    weights: list[bytes]
    model_metrics: dict[str, float]


def read_end(home: Path, experiment: str = "digits") -> EndState:
    """Read the one run of a home, after checking that it is the only one, finished, with one model and no remains."""
    client = MlflowClient(uri(home))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    (model,) = client.search_logged_models([found.experiment_id])
    assert model.status.value == "READY"
    tracking = TrackingConfig(uri=Address(uri(home)), experiment=experiment)
    assert integrity.find_damage(MlflowStore(tracking), run.info.run_id) == ()
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert list((home / "mlruns" / "checkpoints").iterdir()) == []
    mlflow.set_tracking_uri(uri(home))
    loaded = keras.models.load_model(
        Path(mlflow.artifacts.download_artifacts(model.artifact_location)) / "data/model.keras"
    )
    assert run.inputs is not None
    return EndState(
        params=run.data.params,
        tags={
            key: value
            for key, value in run.data.tags.items()
            if key
            not in (
                *("mlflow.runName", "resume.id", "process", "files.sha256"),
                *("mlflow.source.git.commit", "git.dirty", "git.patch"),
            )
        },
        points={
            key: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
            if not key.startswith("time/")
        },
        inputs=sorted((used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs),
        files=digest_files(Path(run.info.artifact_uri.removeprefix("file://").replace("%20", " "))),
        weights=[array.tobytes() for array in loaded.get_weights()],
        model_metrics={metric.key: metric.value for metric in model.metrics if not metric.key.startswith("time/")},
    )


def read_seals(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The list of files, without the digests of those that hold times or names given by chance."""
    varying = ("train/history.csv", "environment/code.patch")
    seals = json.loads(path.read_bytes())
    return {
        "run": [(name, one["sha256"]) for name, one in seals["run"].items() if name not in varying],
        "model": [(name, "") for name in seals["model"]],
    }


def digest_files(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == "history.csv":
            table = pd.read_csv(path)
            content = table.drop(columns=[name for name in table if str(name).startswith("time/")]).to_csv().encode()
        elif path.name == "code.patch":
            continue  # like the tags of git: the code may be changed meanwhile, where it decides nothing
        elif path.name == "files.json":
            content = repr(read_seals(path)).encode()
        else:
            content = path.read_bytes()
        digests[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return digests


class StopAfter:
    """Ends a training in this process after some epochs, as an error would."""

    def __init__(self, num_epochs: int) -> None:
        self._num_epochs = num_epochs

    def __call__(self, epoch: Epoch) -> None:
        if epoch.number == self._num_epochs:
            raise InterruptedError


def run_here(*overrides: str, stop_after: int = 0) -> RunResult:
    """Do in this process what the command does; it saves the imports."""
    request = prepare(compose.compose(list(overrides)), list(overrides))
    return run.execute(request, MlflowTracker(request.config.tracking), on_epoch=StopAfter(stop_after))


def interrupt_here(*overrides: str, stop_after: int) -> None:
    with pytest.raises(InterruptedError):
        run_here(*overrides, stop_after=stop_after)


def all_runs(home: Path) -> list[Any]:
    client = MlflowClient(uri(home))
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def read_digest(output: str) -> str:
    (digest,) = re.findall(r"^result digest +([0-9a-f]{32})$", output, re.MULTILINE)
    return str(digest)
