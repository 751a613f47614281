"""A home with runs to look at: two widths with two seeds each, a sweep, a champion, a run that failed."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from conftest import command
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from mnist_pipeline.config import compose
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.registry import promote, settings
from mnist_pipeline.tracking import sqlite_store, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker

WIDTHS, SEEDS = (16, 48), (0, 1)
CHAMPION = "digits-dense-w48-e3-s0"
NAMES = [f"digits-dense-w{width}-e3-s{seed}" for width in WIDTHS for seed in SEEDS]


def uri(home: Path) -> str:
    return store.sqlite_uri(home / "mlruns" / "mlflow.db")


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(uri(home))


def run_named(home: Path, name: str) -> Run:
    client = client_of(home)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(ids, f"attributes.run_name = '{name}'")
    return found


def artifact(run: Run, path: str) -> Path:
    """Return the file itself: MLflow's client remembers by the id alone where a run's artifacts are."""
    return Path(unquote(urlparse(run.info.artifact_uri).path)) / path


def copy_of(home: Path, folder: Path) -> Path:
    """Return a copy of the home, with artifacts of its own, that may be spoilt."""
    shutil.copytree(home, folder)
    sqlite_store.repair(folder / "mlruns" / "mlflow.db")
    return folder


def make(folder: Path, empty_store: Path) -> Path:
    """Return the home; the processes that run the tests make it once, together."""
    with FileLock(f"{folder}.lock"):
        if (folder / "whole").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "mlruns").mkdir(parents=True)
        shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MNIST_PIPELINE_HOME", str(folder))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it, and it is to be gone afterwards
            _fill(folder)
        (folder / "whole").touch()
    return folder


def _fill(folder: Path) -> None:
    here = f"tracking.uri={uri(folder)}"
    sweep = subprocess.Popen(
        command("sweep", "preset=smoke", here), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    for width in WIDTHS:
        for seed in SEEDS:
            overrides = [
                *("data=digits", "train.num_epochs=3", f"model.hidden_width={width}", f"train.seed={seed}", here),
            ]
            asked = prepare(compose.compose(overrides), overrides)
            run.execute(asked, MlflowTracker(asked.config.tracking))
    where, bounds = settings.read_promote(["data=digits", here, "promote.min_test_accuracy=0.5"])
    promote.promote(MlflowStore(where.tracking), where, bounds, named=CHAMPION, is_dry_run=False)
    client = client_of(folder)
    experiment = client.get_experiment_by_name("digits")
    failed = client.create_run(
        experiment.experiment_id, run_name="a failed one", tags={"kind": "train", "reason": "Boom"}
    )
    client.set_terminated(failed.info.run_id, "FAILED")
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, errors.decode()
