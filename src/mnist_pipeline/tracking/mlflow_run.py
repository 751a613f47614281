"""A run in MLflow, written to here and nowhere else."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import (
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    RunTag,
)
from mlflow.entities import Metric as MlflowMetric
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import Schema, TensorSpec

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system import files
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.versions import MODEL_LIBRARIES, pin_requirements
from mnist_pipeline.tracking import integrity, trials_view
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.integrity import Seal, Seals
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Artifact, Metric, Tag
from mnist_pipeline.tracking.retries import retry
from mnist_pipeline.tracking.tracker import Predict

MODEL_NAME = "model"
_MAX_DIGEST_LENGTH = 36  # of a dataset in MLflow's schema

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)


class MlflowRun:
    """A run in an MLflow store.

    Args:
        store: That holds it.
        experiment_id: Of its experiment.
        run_id: Its id.
        name: Its name.
        artifact_uri: Of its artifacts; by default the store is asked for it.
        is_resumed: Whether an earlier command began it.
        is_hasty: Whether a server that is away is an error at once, though the store has patience with it.
    """

    def __init__(
        self,
        store: MlflowStore,
        *,
        experiment_id: str,
        run_id: str,
        name: str = "",
        artifact_uri: str | None = None,
        is_resumed: bool,
        is_hasty: bool = False,
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.address = store.run_address(experiment_id, run_id)
        self.trials_page = trials_view.address(experiment_id, run_id)
        self.is_resumed = is_resumed
        self.experiment_id = experiment_id
        self.uri = store.uri
        self._store = store
        self._client = store.client.hasty if is_hasty else store.client
        self._artifact_uri = artifact_uri
        self._late: list[MlflowMetric] = []
        self._writing = threading.RLock()
        self._logged: dict[str, Seal] = {}
        self._logged_of_model: dict[str, Seal] = {}

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        """Log the metrics with one time stamp, by which MLflow identifies a point.

        While another thread writes, training does not wait for it: the points go with the run's next write.
        """
        with self._writing:
            self._late += [MlflowMetric(key, value, timestamp_ms, step) for key, value in metrics.items()]
            if not self._client.is_busy:
                self._write()

    def _write(self, tags: Sequence[RunTag] = ()) -> None:
        with self._writing:
            if self._late or tags:
                self._client.log_batch(self.run_id, metrics=self._late, tags=tags)
                self._late = []

    def list_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` has been logged."""
        return {point.step for point in self._client.get_metric_history(self.run_id, metric)}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the tags in one call."""
        self._write([RunTag(key, value) for key, value in tags.items()])

    def show_trials(self, *, params: Sequence[str], metric: str) -> None:
        """Keep the view of the trials as MLflow's UI keeps a view that is shared: as a tag of the experiment."""
        key, view = trials_view.describe(self.run_id, params=params, metric=metric)
        self._client.set_experiment_tag(self.experiment_id, key, view)

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log the split as an MLflow dataset."""
        self.log_input(**describe_split(split, name=name, context=context, source=source))

    def log_input(self, dataset: dict[str, str], tags: Mapping[str, str]) -> None:
        """Log what `describe_split` returned."""
        entity = DatasetEntity.from_dictionary(dataset)
        self._client.log_inputs(
            self.run_id, [DatasetInput(entity, [InputTag(key, value) for key, value in tags.items()])]
        )

    def log_artifacts(self, folder: Path) -> None:
        """Upload the folder.

        Raises:
            UserError: It cannot be written to the store.
        """
        with self._uploading():
            self._client.carry_out(self._artifacts.upload, folder, takes_turn=False)
        self._logged |= {f"{folder.name}/{path}": one for path, one in _seal_files(folder).items()}

    def prepare_model(self) -> None:
        """Import MLflow's part for Keras, and let it list the installed packages: together most of a second."""
        from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

        warn_dependency_requirement_mismatches(pin_requirements(MODEL_LIBRARIES))

    def log_model(
        self,
        model: "keras.Model",
        *,
        example: npt.NDArray[np.uint8],
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int,
    ) -> Predict:
        """Log the model with its signature, an example and pinned requirements; load it through `pyfunc`.

        `mlflow.tensorflow.log_model` does not fit: it needs an active run, which MLflow marks FINISHED when the
        interpreter exits, and it leaves two models if it is killed and called again. Here every step can be repeated;
        the last one marks the model READY.
        """
        with files.scratch() as scratch:
            self.save_model(model, example, folder=scratch / MODEL_NAME)
            self.upload_model(scratch / MODEL_NAME, metrics=metrics, step=step, timestamp_ms=timestamp_ms)
        return self.load_model()

    def upload_model(self, folder: Path, *, metrics: Mapping[str, float], step: int, timestamp_ms: int) -> None:
        """Upload what `save_model` wrote, as the run's logged model."""
        logged = self._require_logged_model()
        about = Model.load(folder)
        about.artifact_path = logged.artifact_location
        about.model_uuid = about.model_id = logged.model_id
        about.run_id = self.run_id
        about.save(folder / MLMODEL_FILE_NAME)
        with self._uploading():
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._logged_of_model = _seal_files(folder)
        # Only of the network: the other files hold addresses, whose lengths differ between stores.
        size = {Metric.MODEL_BYTES: float(next(folder.rglob("*.keras")).stat().st_size)}
        points = [
            MlflowMetric(key, value, timestamp_ms, step, model_id=logged.model_id)
            for key, value in {**metrics, **size}.items()
        ]
        self._client.log_batch(self.run_id, metrics=points)
        outputs = self._client.get_run(self.run_id).outputs
        if not any(output.model_id == logged.model_id for output in (outputs.model_outputs if outputs else ())):
            self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step)])
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)

    def load_model(self, folder: Path | None = None) -> Predict:
        """Return the logged model as a caller will load it; by default from the store, not from its own files."""
        import mlflow.pyfunc  # imported here, because a command that logs no model need not wait for it

        address = f"models:/{self._require_logged_model().model_id}" if folder is None else str(folder)
        loaded = retry("the tracking store", mlflow.pyfunc.load_model, address)
        return lambda images: np.asarray(loaded.predict(images))

    def _require_logged_model(self) -> LoggedModel:
        """Return the run's logged model; create it if an earlier command has not."""
        found = self._client.search_logged_models(
            [self.experiment_id], filter_string=f"source_run_id = '{self.run_id}'"
        )
        if found:
            return found[0]
        return self._client.create_logged_model(
            self.experiment_id, name=MODEL_NAME, source_run_id=self.run_id, model_type="classifier"
        )

    def save_model(self, model: "keras.Model", example: npt.NDArray[np.uint8], *, folder: Path) -> None:
        """Write the model to a folder, as `upload_model` expects it."""
        import keras  # imported here, because a command that logs no model need not wait for TensorFlow
        import mlflow.tensorflow

        keras.config.disable_interactive_logging()  # MLflow calls Keras's predict, which would print progress bars
        with _without_pickled_layers():
            mlflow.tensorflow.save_model(
                model,
                path=str(folder),
                signature=ModelSignature(
                    Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
                    Schema([TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))]),
                ),
                input_example=example,
                # Without them MLflow would load the model in a child process to infer them.
                pip_requirements=pin_requirements(MODEL_LIBRARIES),
            )

    def known_seals(self) -> dict[str, Any]:
        """Return the files that were logged so far, for `log_files` in another process."""
        seals: dict[str, Any] = json.loads(integrity.write_seals(Seals(self._logged, self._logged_of_model)))
        return seals

    def log_files(self, known: Mapping[str, Any] | None = None) -> None:
        """Log the list, and its SHA-256 as a tag.

        Args:
            known: What `known_seals` returned in an earlier process.
        """
        if known is not None:
            seals = integrity.read_seals(json.dumps(known).encode())
            self._logged = {**seals.run, **self._logged}
            self._logged_of_model = {**seals.model, **self._logged_of_model}
        # An earlier command that was killed may have left files too.
        left = {
            path for path in self._artifacts.sizes() if path not in (*self._logged, Artifact.FILES, Artifact.REPORT)
        }
        self._logged.pop(Artifact.FILES, None)  # an earlier attempt logged the list, and then was not answered
        seals = Seals(
            run={**self._logged, **{path: integrity.seal(self._artifacts.read(path)) for path in left}},
            model=self._logged_of_model,
        )
        content = integrity.write_seals(seals)
        with files.scratch() as scratch:
            path = scratch / Artifact.FILES
            path.parent.mkdir()
            path.write_bytes(content)
            self.log_artifacts(path.parent)
        self.set_tags({Tag.FILES_DIGEST: hashlib.sha256(content).hexdigest()})

    def end(self, status: str, *, why: str | None = None, is_patient: bool = True) -> None:
        """End the run as FINISHED, FAILED or KILLED.

        Args:
            status: MLflow's.
            why: It did not finish.
            is_patient: Whether to wait for a locked database.
        """
        client = self._client if is_patient else self._client.without_retries
        if why is None:
            self._write()
        client.set_terminated(self.run_id, status)
        if why is not None:
            client.log_batch(self.run_id, metrics=self._late, tags=[RunTag(Tag.REASON, hide(why)[:5000])])

    @functools.cached_property
    def _artifacts(self) -> ArtifactFolder:
        address = self._artifact_uri or self._client.get_run(self.run_id).info.artifact_uri
        return ArtifactFolder(address, tracking_uri=self._store.connected)

    @contextlib.contextmanager
    def _uploading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename2:
                # The incomplete copy takes the space that the run's status needs.
                Path(error.filename2).unlink(missing_ok=True)
            raise UserError(
                f"{error.strerror or error}: files of the run cannot be written to the tracking store "
                f"{self._store.uri}; fix that and run the same command again, which resumes"
            ) from error


@contextlib.contextmanager
def _without_pickled_layers() -> Iterator[None]:
    """Hide the registered layers from MLflow, which would pickle them beside the network; no loader of ours unpickles.

    Keras saves their names, and finds them by these once their module is imported.
    """
    import keras

    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        yield
    finally:
        registered.update(kept)


def describe_split(split: Split, *, name: str, context: str, source: str) -> dict[str, Any]:
    """Return a split as an MLflow dataset and its tags; MLflow keeps a part of its digest, and the tag `sha256` all."""
    is_address = source.startswith(("http://", "https://"))
    origin = HTTPDatasetSource(source) if is_address else CodeDatasetSource({"source": source})
    # MLflow's own digest covers only the first 10,000 numbers: a dozen images.
    dataset = NumpyDataset(
        split.images, origin, targets=split.labels, name=name, digest=split.digest[:_MAX_DIGEST_LENGTH]
    )
    return {"dataset": dataset.to_dict(), "tags": {"mlflow.data.context": context, "sha256": split.digest}}


def _seal_files(folder: Path) -> dict[str, Seal]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): integrity.seal(path.read_bytes()) for path in found}
