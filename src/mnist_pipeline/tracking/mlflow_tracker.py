"""Runs are tracked in MLflow here, and nowhere else."""

import contextlib
import errno
import hashlib
import logging
import threading
from collections.abc import Collection, Iterator, Mapping
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
    Param,
    RunTag,
)
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system import files
from mnist_pipeline.system.errors import Terminated, UserError
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.versions import MODEL_LIBRARIES, pin_requirements
from mnist_pipeline.tracking import integrity, runs
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.database_errors import explain, is_locked
from mnist_pipeline.tracking.integrity import Seal, Seals
from mnist_pipeline.tracking.mlflow_store import MlflowStore, user
from mnist_pipeline.tracking.record import EPOCH_METRICS, Artifact, Metric, Point, RunRecord, Tag
from mnist_pipeline.tracking.retries import retry
from mnist_pipeline.tracking.tracker import Predict, RecordedTraining, Run, RunSpec

MODEL_NAME = "model"
_MAX_DIGEST_LENGTH = 36  # of a dataset in MLflow's schema

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)


class MlflowRun:
    """A run in an MLflow store."""

    def __init__(self, store: MlflowStore, *, experiment_id: str, run_id: str, is_resumed: bool) -> None:
        self.run_id = run_id
        self.address = store.run_address(experiment_id, run_id)
        self.is_resumed = is_resumed
        self._store = store
        self._client = store.client
        self._experiment_id = experiment_id
        self._logged: dict[str, Seal] = {}
        self._logged_of_model: dict[str, Seal] = {}

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        """Log the metrics with one time stamp, by which MLflow identifies a point."""
        points = [MlflowMetric(key, value, timestamp_ms, step) for key, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=points)

    def list_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` has been logged."""
        return {point.step for point in self._client.get_metric_history(self.run_id, metric)}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the tags in one call."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log the split as an MLflow dataset; MLflow keeps a part of its digest, and the tag `sha256` all of it."""
        is_address = source.startswith(("http://", "https://"))
        origin = HTTPDatasetSource(source) if is_address else CodeDatasetSource({"source": source})
        # MLflow's own digest covers only the first 10,000 numbers: a dozen images.
        dataset = NumpyDataset(
            split.images, origin, targets=split.labels, name=name, digest=split.digest[:_MAX_DIGEST_LENGTH]
        )
        entity = DatasetEntity.from_dictionary(dataset.to_dict())
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", split.digest)]
        self._client.log_inputs(self.run_id, [DatasetInput(entity, tags)])

    def log_artifacts(self, folder: Path) -> None:
        """Upload the folder.

        Raises:
            UserError: It cannot be written to the store.
        """
        with self._uploading():
            self._client.log_artifacts(self.run_id, str(folder), folder.name)
        self._logged |= {f"{folder.name}/{path}": one for path, one in _seal_files(folder).items()}

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
        logged = self._require_logged_model()
        with files.scratch() as scratch:
            self._save_model(model, logged, example, folder=scratch / MODEL_NAME)
            with self._uploading():
                self._client.log_model_artifacts(logged.model_id, f"{scratch}/{MODEL_NAME}")
            self._logged_of_model = _seal_files(scratch / MODEL_NAME)
            # Only of the network: the other files hold addresses, whose lengths differ between stores.
            size = {Metric.MODEL_BYTES: float(next(scratch.rglob("*.keras")).stat().st_size)}
        points = [
            MlflowMetric(key, value, timestamp_ms, step, model_id=logged.model_id)
            for key, value in {**metrics, **size}.items()
        ]
        self._client.log_batch(self.run_id, metrics=points)
        outputs = self._client.get_run(self.run_id).outputs
        if not any(output.model_id == logged.model_id for output in (outputs.model_outputs if outputs else ())):
            self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step)])
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        import mlflow.pyfunc  # imported here, because a command that logs no model need not wait for it

        loaded = retry("the tracking store", mlflow.pyfunc.load_model, f"models:/{logged.model_id}")
        return lambda images: np.asarray(loaded.predict(images))

    def _require_logged_model(self) -> LoggedModel:
        """Return the run's logged model; create it if an earlier command has not."""
        found = self._client.search_logged_models(
            [self._experiment_id], filter_string=f"source_run_id = '{self.run_id}'"
        )
        if found:
            return found[0]
        return self._client.create_logged_model(
            self._experiment_id, name=MODEL_NAME, source_run_id=self.run_id, model_type="classifier"
        )

    def _save_model(
        self, model: "keras.Model", logged: LoggedModel, example: npt.NDArray[np.uint8], *, folder: Path
    ) -> None:
        import keras  # imported here, because a command that logs no model need not wait for TensorFlow
        import mlflow.tensorflow

        keras.config.disable_interactive_logging()  # MLflow calls Keras's predict, which would print progress bars
        with _without_pickled_layers():
            mlflow.tensorflow.save_model(
                model,
                path=str(folder),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=logged.model_id,
                    run_id=self.run_id,
                    model_id=logged.model_id,
                ),
                signature=ModelSignature(
                    Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
                    Schema([TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))]),
                ),
                input_example=example,
                # Without them MLflow would load the model in a child process to infer them.
                pip_requirements=pin_requirements(MODEL_LIBRARIES),
            )

    def log_files(self) -> None:
        """Log the list, and its SHA-256 as a tag."""
        run = self._client.get_run(self.run_id)
        folder = ArtifactFolder(run.info.artifact_uri, tracking_uri=self._store.connected)
        # An earlier command that was killed may have left files too.
        left = {path for path in folder.sizes() if path not in (*self._logged, Artifact.FILES, Artifact.REPORT)}
        seals = Seals(
            run={**self._logged, **{path: integrity.seal(folder.read(path)) for path in left}},
            model=self._logged_of_model,
        )
        content = integrity.write_seals(seals)
        with files.scratch() as scratch:
            path = scratch / Artifact.FILES
            path.parent.mkdir()
            path.write_bytes(content)
            self.log_artifacts(path.parent)
        self.set_tags({Tag.FILES_DIGEST: hashlib.sha256(content).hexdigest()})

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


def _seal_files(folder: Path) -> dict[str, Seal]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): integrity.seal(path.read_bytes()) for path in found}


class MlflowTracker:
    """Opens runs in the MLflow store of a configuration.

    Raises:
        UserError: The store cannot be opened, or the experiment was deleted.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._store = MlflowStore(config)
        self._client = self._store.client
        self._experiment_id = self._store.require_experiment(config.experiment)
        self._shown: set[str] = set()
        self._showing = threading.Lock()

    @contextlib.contextmanager
    def run(self, spec: RunSpec) -> Iterator[Run]:
        """Open or resume a run. Its status is written even if Ctrl-C or SIGTERM ends it."""
        all_tags = {
            Tag.KIND: spec.kind,
            Tag.DESCRIPTION: spec.description,
            Tag.USER: user(),
            Tag.PROGRAM: "mnist-pipeline",
            Tag.PROGRAM_KIND: "LOCAL",
            Tag.RESUME_ID: spec.resume_id,
            **spec.tags,
        }
        with self._store.reporting_errors():
            begun = next(self._search({Tag.RESUME_ID: spec.resume_id}), None)
            if begun:
                run_id = begun.info.run_id
                known = begun.data.params
                self._reopen(begun)
            else:
                self._close_elsewhere(spec.resume_id)
                run_id = self._client.create_run(self._experiment_id, run_name=spec.name, tags=all_tags).info.run_id
                known = {}
            run = MlflowRun(
                self._store,
                experiment_id=self._experiment_id,
                run_id=run_id,
                is_resumed=begun is not None,
            )
            with self._closed(run):
                if begun:
                    run.set_tags(all_tags)
                # MLflow does not let params change. Those that may differ, such as the address of a mirror, keep their
                # first value.
                missing = [Param(key, str(value)) for key, value in spec.params.items() if key not in known]
                self._client.log_batch(run_id, params=missing)
                self._show_columns(spec.params)
                yield run

    def _show_columns(self, params: Collection[str]) -> None:
        """Let the UI show the keys of a model, which the first run of it makes known."""
        with self._showing:
            if not self._shown.issuperset(params):
                self._store.show_columns(self._experiment_id, params)
                self._shown.update(params)

    def find_finished(self, tags: Mapping[str, str]) -> RunRecord | None:
        """Return the newest finished run with `tags`; a damaged run is reported and does not count."""
        with self._store.reporting_errors():
            for entity in self._search(tags, is_finished=True):
                run_id = entity.info.run_id
                damage = integrity.find_damage(self._store, run_id)
                if not damage:
                    return runs.read(self._store, entity)
                _log.warning("run %s is finished, but damaged (%s): it does not count", run_id, "; ".join(damage))
        return None

    def find_interrupted(self, tags: Mapping[str, str], params: Mapping[str, str]) -> list[RunRecord]:
        """Return the runs of this experiment that have not ended as FINISHED or FAILED."""
        with self._store.reporting_errors():
            found = [runs.read(self._store, entity) for entity in self._search(tags)]
        return [
            run for run in found if run.status in ("RUNNING", "KILLED") and params.items() <= dict(run.params).items()
        ]

    def find_training(self, fingerprint: str) -> RecordedTraining | None:
        """Return the longest training with the tag; epochs after a gap do not count."""
        with self._store.reporting_errors():
            found = [self._read_training(entity) for entity in self._search({Tag.TRAINING_FINGERPRINT: fingerprint})]
        return max(found, key=lambda training: len(training.points), default=None)

    def read_training(self, run_id: str) -> RecordedTraining:
        """Return the epochs that a run has tracked."""
        with self._store.reporting_errors():
            return self._read_training(self._client.get_run(run_id))

    def _read_training(self, entity: MlflowEntity) -> RecordedTraining:
        run_id = entity.info.run_id
        epochs: dict[int, dict[str, MlflowMetric]] = {}
        names = [key for key in entity.data.metrics if key in EPOCH_METRICS]
        for key in names:
            for point in self._client.get_metric_history(run_id, key):
                epochs.setdefault(point.step, {})[key] = point
        points: list[Point] = []
        while len(epochs.get(len(points) + 1, {})) == len(names) > 0:
            metrics = epochs[len(points) + 1]
            ended_ms = next(iter(metrics.values())).timestamp
            points.append(Point(len(points) + 1, {key: point.value for key, point in metrics.items()}, ended_ms))
        return RecordedTraining(run_id=run_id, points=tuple(points))

    def _search(self, tags: Mapping[str, str], *, is_finished: bool = False) -> Iterator[MlflowEntity]:
        finished = ("attributes.status = 'FINISHED'",) if is_finished else ()
        return runs.search_entities(self._store, [self._experiment_id], tags, conditions=finished)

    def _close_elsewhere(self, resume_id: str) -> None:
        """Close the run of another experiment that the command would have resumed there: MLflow cannot move it."""
        others = [one for one in runs.experiment_ids(self._store) if one != self._experiment_id]
        for entity in runs.search_entities(self._store, others, {Tag.RESUME_ID: resume_id}):
            run_id, name = entity.info.run_id, entity.info.run_name
            if entity.info.status == "RUNNING":
                self._close(run_id, "KILLED", self._client, why="interrupted; continued in another experiment")
            _log.info("resume    the run %s (%s) of another experiment is continued in a new run here", name, run_id)

    def _reopen(self, run: MlflowEntity) -> None:
        self._client.update_run(run.info.run_id, status="RUNNING")
        if Tag.REASON in run.data.tags:
            self._client.delete_tag(run.info.run_id, Tag.REASON)

    @contextlib.contextmanager
    def _closed(self, run: MlflowRun) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, Terminated) as interruption:
            why = "SIGTERM" if isinstance(interruption, Terminated) else "Ctrl-C"
            self._close(run.run_id, "KILLED", self._client, why=why)
            raise
        except BaseException as error:
            is_store = isinstance(error, MlflowException | SQLAlchemyError)
            why = f"{type(error).__name__}: {explain(error) if is_store else error}"
            # Do not wait a second time for a lock.
            client = self._client.without_retries if is_locked(error) else self._client
            self._close(run.run_id, "FAILED", client, why=why)
            raise
        else:
            self._client.set_terminated(run.run_id, "FINISHED")

    def _close(self, run_id: str, status: str, client: Any, *, why: str) -> None:
        # The store itself may have failed: the first error is the one to report.
        try:
            client.set_terminated(run_id, status)
            client.log_batch(run_id, tags=[RunTag(Tag.REASON, hide(why)[:5000])])
        except (MlflowException, SQLAlchemyError) as error:
            _log.warning("run %s could not be marked %s: %s", run_id, status, explain(error))
