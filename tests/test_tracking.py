from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import server
from mlflow import MlflowClient

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Split
from mnist_pipeline.model import dense, prediction
from mnist_pipeline.system.errors import Terminated, UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.tracker import Run, RunSpec


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Iterator[str]:
    """Each test runs on the local store and against a real server."""
    if request.param == "sqlite":
        yield f"sqlite:///{home}/mlruns/mlflow.db"
        return
    with server(home / "mlruns" / "mlflow.db", tmp_path / "server_artifacts") as address:
        yield address


def open_tracker(uri: str) -> MlflowTracker:
    return MlflowTracker(TrackingConfig(uri=Address(uri), experiment="a test/with: signs"))


def open_run(tracker: MlflowTracker) -> AbstractContextManager[Run]:
    return tracker.run(
        RunSpec(
            kind="train",
            name="a run",
            description="**what** it is",
            params={"train.seed": 0},
            tags={"own": "tag"},
            resume_id="c" * 32,
        )
    )


@dataclass(frozen=True)
class Logged:
    """A run with everything that a tracker can log, as MLflow gives it back."""

    model: keras.Model
    test: Split
    run: mlflow.entities.Run
    predict: Callable[[np.ndarray], np.ndarray]


def log_everything(uri: str, folder: Path) -> Logged:
    test = catalogue.load(compose.compose(["data=digits"]).data).test
    network = dense.build(hidden_width=8, dropout_rate=0, image_shape=(28, 28), num_classes=10, seed=0)
    model = prediction.with_probabilities(network)
    folder.mkdir()
    (folder / "table.csv").write_text("a,b\n1,2\n")
    last = {"train/loss": 0.25, "train/accuracy": 0.5}
    with open_run(open_tracker(uri)) as run:
        run.log_metrics({"train/loss": 0.5, "train/accuracy": 0.25}, step=1, timestamp_ms=1)
        run.log_metrics(last, step=2, timestamp_ms=2)
        run.log_split(test, name="digits-test", context="test", source="scikit-learn")
        run.log_artifacts(folder)
        predict = run.log_model(model, example=test.images[:1], metrics=last, step=2, timestamp_ms=2)
        run.set_tags({"more": "later"})
    return Logged(model, test, MlflowClient(uri).get_run(run.run_id), predict)


def test_everything_of_a_run_is_there_afterwards(uri: str, tmp_path: Path) -> None:
    logged = log_everything(uri, tmp_path / "evaluate")
    client, run = MlflowClient(uri), logged.run
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a run"
    assert run.data.params == {"train.seed": "0"}
    size = run.data.metrics.pop("model/size_bytes")
    assert run.data.metrics == {"train/loss": 0.25, "train/accuracy": 0.5}
    assert 4 * logged.model.count_params() < size < 100_000
    losses = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in losses] == [(1, 0.5), (2, 0.25)]
    tags = {key: run.data.tags[key] for key in ("kind", "own", "more")}
    assert tags == {"kind": "train", "own": "tag", "more": "later"}
    (used,) = run.inputs.dataset_inputs
    digest = logged.test.digest
    assert (used.dataset.name, used.dataset.digest) == ("digits-test", digest[:36])
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "test", "sha256": digest}
    assert [artifact.path for artifact in client.list_artifacts(run_id, "evaluate")] == ["evaluate/table.csv"]
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "a test/with: signs"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_logged_model_takes_raw_images_and_states_what_it_needs(uri: str, tmp_path: Path) -> None:
    made = log_everything(uri, tmp_path / "evaluate")
    (logged,) = MlflowClient(uri).search_logged_models([made.run.info.experiment_id])
    assert logged.source_run_id == made.run.info.run_id
    assert logged.status.value == "READY"
    mlflow.set_tracking_uri(uri)
    info = mlflow.models.get_model_info(f"models:/{logged.model_id}")
    (image,), (probabilities,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (image.type, image.shape) == (np.dtype(np.uint8), (-1, 28, 28))
    assert (probabilities.type, probabilities.shape) == (np.dtype(np.float32), (-1, 10))
    expected = np.asarray(made.model(made.test.images))
    np.testing.assert_allclose(made.predict(made.test.images), expected, atol=1e-6)
    requirements = Path(mlflow.pyfunc.get_model_dependencies(logged.model_uri)).read_text()
    assert {line.split("==")[0] for line in requirements.split()} >= {"tensorflow", "keras", "numpy"}
    assert all("==" in line for line in requirements.split())
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    example = loaded.input_example
    assert example is not None
    assert np.asarray(example).shape == (1, 28, 28)
    assert loaded.predict(np.asarray(example, np.uint8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no good"), "FAILED", "ValueError: no good"),
        (UserError("your fault"), "FAILED", "UserError: your fault"),
        (KeyboardInterrupt(), "KILLED", "Ctrl-C"),
        (Terminated(), "KILLED", "SIGTERM"),
    ],
)
def test_the_end_of_a_run_is_logged_and_the_error_propagates(
    error: BaseException, status: str, reason: str, home: Path
) -> None:
    uri = f"sqlite:///{home}/mlruns/mlflow.db"
    with pytest.raises(type(error)), open_run(open_tracker(uri)) as run:
        raise error
    found = MlflowClient(uri).get_run(run.run_id)
    assert found.info.status == status
    assert found.data.tags["reason"] == reason
    assert found.info.end_time is not None


def test_a_store_that_breaks_does_not_hide_the_error(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"sqlite:///{home}/mlruns/mlflow.db"
    client = MlflowClient(uri)

    def break_and_fail() -> None:
        with open_run(open_tracker(uri)) as run:
            client.delete_run(run.run_id)  # MLflow refuses to tag a deleted run
            raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        break_and_fail()
    assert "could not be marked FAILED" in caplog.text


def test_a_deleted_experiment_is_reported(home: Path) -> None:
    uri = f"sqlite:///{home}/mlruns/mlflow.db"
    with open_run(open_tracker(uri)):
        pass
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("a test/with: signs")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    tracker = open_tracker(uri)
    with pytest.raises(UserError, match="was deleted: restore it"), open_run(tracker):
        pass
    with pytest.raises(UserError, match="was deleted: restore it"):
        tracker.find_finished({})


def test_artifacts_stay_in_the_home(home: Path) -> None:
    uri = f"sqlite:///{home}/mlruns/mlflow.db"
    with open_run(open_tracker(uri)):
        pass
    experiment = MlflowClient(uri).get_experiment_by_name("a test/with: signs")
    assert experiment is not None
    assert experiment.artifact_location.startswith(f"{home.as_uri()}/mlruns/artifacts/")
