"""The only door to MLflow's runs."""

import contextlib
import getpass
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import keras
import mlflow.pyfunc
import mlflow.tensorflow
import numpy as np
import numpy.typing as npt
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline import store
from mnist_pipeline.config import TrackingConfig, without_password
from mnist_pipeline.data import Split
from mnist_pipeline.environment import MODEL_LIBRARIES, requirements
from mnist_pipeline.errors import Terminated, UserError

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

MODEL_NAME = "model"
_MAX_DIGEST_LENGTH = 36  # of a dataset in MLflow's schema

_log = logging.getLogger(__name__)


class Run(Protocol):
    """An open run."""

    run_id: str
    address: str

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures of one step, in one call."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add or change tags."""

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log that the run used `split`, with its own digest."""

    def log_artifacts(self, folder: Path) -> None:
        """Log every file in `folder` under the folder's own name."""

    def log_model(self, model: keras.Model, *, example: npt.NDArray[np.uint8], step: int) -> Predict:
        """Log a model from uint8 images to float32 probabilities; return it as a caller will load it."""


class Tracker(Protocol):
    """Opens runs."""

    def run(
        self, *, kind: str, name: str, description: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> AbstractContextManager[Run]:
        """Open a run; at the end it is FINISHED, or FAILED or KILLED with a `reason`, and what was raised goes on."""


class MlflowRun:
    """A run in an MLflow store."""

    def __init__(self, client: MlflowClient, *, experiment_id: str, run_id: str, server: str) -> None:
        self.run_id = run_id
        self.address = f"{server}/#/experiments/{experiment_id}/runs/{run_id}{store.UI_VIEW}"
        self._client = client
        self._experiment_id = experiment_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log the figures with one time stamp."""
        now = _now_ms()
        self._client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the tags in one call."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log the split as an MLflow dataset; its digest is cut to MLflow's length, the tag `sha256` has it whole."""
        is_address = source.startswith(("http://", "https://"))
        origin = HTTPDatasetSource(source) if is_address else CodeDatasetSource({"source": source})
        # MLflow by itself would digest the first 10,000 numbers only: a dozen images.
        dataset = NumpyDataset(
            split.images, origin, targets=split.labels, name=name, digest=split.digest[:_MAX_DIGEST_LENGTH]
        )
        entity = DatasetEntity.from_dictionary(dataset.to_dict())
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", split.digest)]
        self._client.log_inputs(self.run_id, [DatasetInput(entity, tags)])

    def log_artifacts(self, folder: Path) -> None:
        """Upload the folder."""
        self._client.log_artifacts(self.run_id, str(folder), folder.name)

    def log_model(self, model: keras.Model, *, example: npt.NDArray[np.uint8], step: int) -> Predict:
        """Log the model with its signature, an example and pinned requirements; load it back through `pyfunc`."""
        keras.config.disable_interactive_logging()  # MLflow calls Keras's predict, which would draw bars on stdout
        # Called directly and not through mlflow.tensorflow.log_model: that one works on an active run, which MLflow
        # marks FINISHED by itself when the interpreter exits.
        placeholder = self._client.create_logged_model(
            self._experiment_id, name=MODEL_NAME, source_run_id=self.run_id, model_type="classifier"
        )
        logged = Model.log(
            artifact_path=None,
            flavor=mlflow.tensorflow,
            model_id=placeholder.model_id,
            run_id=self.run_id,
            step=step,
            model=model,
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
                Schema([TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))]),
            ),
            input_example=example,
            # Without them MLflow would import the model once more in a child process to find out.
            pip_requirements=requirements(MODEL_LIBRARIES),
        )
        loaded = mlflow.pyfunc.load_model(logged.model_uri)
        return lambda images: np.asarray(loaded.predict(images))


class MlflowTracker:
    """Opens runs in the MLflow store of a configuration.

    Raises:
        UserError: The store cannot be opened, or the experiment was deleted.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._uri = store.resolve_uri(config)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        try:
            store.create(self._uri)
            mlflow.set_tracking_uri(self._uri)
            self._client = MlflowClient(self._uri)
            self._experiment_id = self._find_experiment(config.experiment)
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"the tracking store {without_password(self._uri)} cannot be opened ({reason}): mend it (mlflow db "
                "upgrade URI, where MLflow is newer than the store), or give tracking.uri= another one"
            ) from error

    @contextlib.contextmanager
    def run(
        self, *, kind: str, name: str, description: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[Run]:
        """Open a run. Its status is written even where Ctrl-C or SIGTERM ends it."""
        own_tags = {
            "kind": kind,
            "mlflow.note.content": description,
            "mlflow.user": _user(),
            "mlflow.source.name": "mnist-pipeline",
            "mlflow.source.type": "LOCAL",
        }
        run_id = self._client.create_run(self._experiment_id, run_name=name, tags={**own_tags, **tags}).info.run_id
        server = without_password(self._uri).rstrip("/") if store.is_server(self._uri) else "http://127.0.0.1:5000"
        run = MlflowRun(self._client, experiment_id=self._experiment_id, run_id=run_id, server=server)
        with self._closed(run):
            self._client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
            yield run

    @contextlib.contextmanager
    def _closed(self, run: MlflowRun) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, Terminated) as interruption:
            self._close(run, "KILLED", reason="SIGTERM" if isinstance(interruption, Terminated) else "Ctrl-C")
            raise
        except BaseException as error:
            self._close(run, "FAILED", reason=f"{type(error).__name__}: {error}")
            raise
        else:
            self._client.set_terminated(run.run_id, "FINISHED")

    def _close(self, run: MlflowRun, status: str, *, reason: str) -> None:
        # The store itself may be what failed: what went wrong first is what the user must hear of.
        try:
            self._client.set_terminated(run.run_id, status)
            run.set_tags({"reason": reason[:5000]})
        except (MlflowException, SQLAlchemyError) as error:
            _log.warning("run %s could not be marked %s: %s", run.run_id, status, error)

    def _find_experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            artifacts = store.artifacts_dir(self._uri)
            location = (artifacts / re.sub(r"[^\w-]+", "-", name)).as_uri() if artifacts else None
            try:
                created = self._client.create_experiment(
                    name,
                    artifact_location=location,
                    # Without it the UI opens the experiment in its view for generative AI.
                    tags={"mlflow.experimentKind": "custom_model_development"},
                )
                return str(created)
            except MlflowException:
                experiment = self._client.get_experiment_by_name(name)  # another process was faster
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"tracking.experiment={name} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}) or choose another name"
            )
        return str(experiment.experiment_id)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
