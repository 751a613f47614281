"""Stores that hold what this project did not write, or cannot give what they list."""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import mlflow.sklearn
import pytest
from conftest import Cli, server
from mlflow import MlflowClient
from sklearn.dummy import DummyClassifier

from mnist_pipeline.tracking import store

MODEL = "digits-classifier"


@pytest.fixture
def copied(champion_home: Path, home: Path) -> Path:
    """A home with a champion whose files may be changed."""
    (home / "mlruns").mkdir(exist_ok=True)
    (home / "mlruns" / "artifacts").symlink_to(champion_home / "mlruns" / "artifacts")
    return Path(shutil.copy(champion_home / "mlruns" / "mlflow.db", home / "mlruns" / "mlflow.db"))


@pytest.fixture
def foreign_champion(copied: Path) -> str:
    """The URI of a store whose champion is a model of scikit-learn, registered by hand."""
    uri = store.sqlite_uri(copied)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(experiment_id="1", run_name="by hand"):
            logged = mlflow.sklearn.log_model(
                DummyClassifier().fit([[0]], [0]), name="model", serialization_format="cloudpickle"
            )
    finally:
        mlflow.set_tracking_uri(before)
    client = MlflowClient(uri)
    location = client.get_logged_model(logged.model_id).artifact_location
    version = client.create_model_version(MODEL, source=location, run_id=logged.run_id)
    client.set_registered_model_alias(MODEL, "champion", version.version)
    return uri


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["predict", "a.png"], ["serve", "--port", "0"], ["promote"], ["rollback", "--to", "2", "--reason", "try"]],
    ids=lambda arguments: arguments[0],
)
def test_a_champion_that_is_not_a_keras_model_is_one_line(
    arguments: list[str], foreign_champion: str, cli: Cli
) -> None:
    found = cli(*arguments, "data=digits", f"tracking.uri={foreign_champion}")
    assert found.returncode in (1, 2)
    assert "Traceback" not in found.stderr
    assert [line for line in found.stderr.splitlines() if line.startswith("error: ")] == found.stderr.splitlines()[-1:]


@contextlib.contextmanager
def without_content(path: Path) -> Iterator[None]:
    """Replace a file by a socket: it is listed, but to open it fails, for root too."""
    whole = path.read_bytes()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):  # a socket's path must be short
        listener.bind(path.name)
        yield
    path.unlink()
    path.write_bytes(whole)


@pytest.mark.slow
def test_an_artifact_that_a_server_lists_but_cannot_give_is_one_line(home: Path, tmp_path: Path, cli: Cli) -> None:
    with server(home / "mlflow.db", home / "artifacts") as address:
        at = ["data=digits", f"tracking.uri={address}"]
        assert cli("train", *at, "train.num_epochs=1", "model.hidden_width=8").returncode == 0
        report = ["report", "digits-dense-w8-e1-s0", *at, "--output", str(tmp_path / "report.html")]
        whole = cli(*report)
        assert (whole.returncode, whole.stderr) == (0, "")  # although an artifact that not every run has is missing
        with without_content(next((home / "artifacts").rglob("predictions.parquet"))):
            found = cli(*report, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    assert found.returncode == 1
    assert "evaluate/predictions.parquet" in found.stderr
    assert found.stderr.count("\n") == 1
