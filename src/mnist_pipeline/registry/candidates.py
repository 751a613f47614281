"""Which run is to be promoted, and what it left as evidence."""

import difflib
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline import composing, data, mlflow_runs, quiet
from mnist_pipeline.config import Config
from mnist_pipeline.errors import ConfigError, UserError
from mnist_pipeline.mlflow_store import MlflowStore
from mnist_pipeline.registry.gates import DIGEST_TAGS, describe_signature
from mnist_pipeline.tracking import PastRun

if TYPE_CHECKING:
    from mlflow.models import Model

KINDS = ("train", "final")
_NEEDED_TAGS = ("fingerprint", *DIGEST_TAGS, "result.digest")
_SPLIT_KEYS = ("data.validation_size", "data.split_seed")


@dataclass(frozen=True)
class Candidate:
    """A run that may be promoted.

    Attributes:
        model_id: Of the model that it logged.
        why: How it came to be chosen.
    """

    run: PastRun
    model_id: str
    why: str


@dataclass(frozen=True)
class Evidence:
    """What a run's artifacts say.

    Attributes:
        config: None where it is missing.
        predictions: None where they are missing.
        missing: What is not there, or cannot be read.
    """

    config: Config | None
    predictions: pd.DataFrame | None
    missing: tuple[str, ...]


def find_named(store: MlflowStore, named: str) -> Candidate:
    """Return the run with this id or, if only one has it, this name.

    Raises:
        UserError: There is none, there are several, or it is no candidate.
    """
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    by_id = _get(store, named)
    found = [by_id] if by_id else [entity for entity in _finished(store, experiments) if entity.info.run_name == named]
    if not found:
        names = {entity.info.run_name for entity in _finished(store, experiments)}
        nearest = difflib.get_close_matches(named, names, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "make ui shows the runs; give the id of one"
        raise UserError(f"{named}: no finished run of kind {' or '.join(KINDS)} has this id or name; {hint}")
    if len(found) > 1:
        ids = ", ".join(entity.info.run_id for entity in found[:5])
        raise UserError(f"{named}: {len(found)} runs have this name; give the id of one: {ids}")
    (entity,) = found
    kind = entity.data.tags.get("kind", "unknown")
    if kind not in KINDS or entity.info.status != "FINISHED":
        raise UserError(
            f"{named} is a {entity.info.status} run of kind {kind}: expected a finished {' or '.join(KINDS)}"
        )
    candidate = _candidate(store, entity, why="as named")
    if candidate is None:
        raise UserError(f"{named} has no logged model: give another run, or train it again with force=true")
    return candidate


def find_best(
    store: MlflowStore, experiment: str, *, champion: PastRun | None, data_name: str, shunned: Collection[str] = ()
) -> Candidate:
    """Return the run with the best validation accuracy among those that can be compared with each other.

    Those are the finished runs on the champion's data, of one validation split: the champion's, else the newest run's.

    Args:
        store: Where they are.
        experiment: Name of the experiment in which they are looked for.
        champion: The champion's run; None: there is none.
        data_name: Of the registered model.
        shunned: Ids of runs that are not to be chosen.

    Raises:
        UserError: There is none.
    """
    found = store.find_experiment(experiment)
    entities = [
        entity
        for entity in _finished(store, [found] if found else [])
        if "data.fallback" not in entity.data.tags and entity.data.params.get("data.name") == data_name
        if entity.info.run_id not in shunned
        if champion is None or all(entity.data.tags.get(tag) == champion.tags.get(tag) for tag in DIGEST_TAGS)
    ]
    if not entities:
        whose = "on the champion's data " if champion else ""
        raise UserError(
            f"no run {whose}can be promoted in the experiment {experiment}: train one (mnist-pipeline train "
            f"data={data_name}), or choose another experiment with tracking.experiment="
        )
    ranked = [entity for entity in entities if "validation/accuracy" in entity.data.metrics]
    if not ranked:
        raise UserError(
            f"none of the {len(entities)} runs has a validation split to rank them by: name the one to promote"
        )
    split = _split(champion) if champion and _split(champion) in map(_split, ranked) else _split(ranked[0])
    comparable = [entity for entity in ranked if _split(entity) == split]
    # Of equal ones the oldest, so that a run made twice is not promoted twice.
    comparable.sort(key=lambda entity: (-entity.data.metrics["validation/accuracy"], entity.info.start_time))
    names = ", ".join(f"{key}={value}" for key, value in zip(_SPLIT_KEYS, split, strict=True))
    for entity in comparable:
        accuracy = entity.data.metrics["validation/accuracy"]
        why = f"best validation accuracy, {accuracy:.4f}, of {len(comparable)} with {names}"
        candidate = _candidate(store, entity, why=why)
        if candidate is not None:
            return candidate
    raise UserError(f"none of the {len(comparable)} runs with {names} has a logged model: train one with force=true")


def find_run(store: MlflowStore, run_id: str) -> PastRun:
    """Return the run that a version came of, even if it was deleted since.

    Raises:
        UserError: It is gone for good.
    """
    entity = _get(store, run_id)
    if entity is None:
        raise UserError(
            f"the champion's run {run_id} is gone, and with it what a challenger is compared with: roll back to "
            "another version (mnist-pipeline rollback --to VERSION)"
        )
    return mlflow_runs.read(store, entity)


def count_scored(store: MlflowStore, test_digest: str) -> int:
    """Return how many runs were ever scored on a test split, deleted ones included."""
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments(view_type=3)]
    scored = ("metrics.`test/accuracy` >= 0",)
    tags = {"data.test_digest": test_digest}
    return sum(1 for _ in mlflow_runs.search(store, experiments, tags, conditions=scored, view=3))


def read_evidence(store: MlflowStore, run: PastRun) -> Evidence:
    """Read what the run logged, and say what is missing of it."""
    missing = [f"the tag {tag}" for tag in _NEEDED_TAGS if tag not in run.tags]
    if not mlflow_runs.is_whole(store, run.run_id):
        missing.append("files")
    try:
        config = composing.read_logged(run.path("config/config.yaml").read_text())
    except (MlflowException, OSError, UnicodeDecodeError, ConfigError):
        config = None
        missing.append("a configuration that can be read")
    predictions = read_predictions(run)
    if predictions is None:
        missing.append("predictions that can be read")
    return Evidence(config=config, predictions=predictions, missing=tuple(missing))


def read_predictions(run: PastRun) -> pd.DataFrame | None:
    """Return the run's predictions, one row a test image; None where they cannot be read."""
    try:
        return pd.read_parquet(run.path("evaluate/predictions.parquet"))
    except (MlflowException, OSError, ValueError):
        return None


@dataclass(frozen=True)
class Reloaded:
    """A logged model, loaded as a caller would.

    Attributes:
        signature: As `gates.describe_signature` writes it.
        num_bytes: Of its files.
        probabilities: float32 (n, num_classes), of the images of the test split.
    """

    signature: str
    num_bytes: int
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """What the evidence is worth.

    Attributes:
        missing: What is not there, the model included.
        reloaded: None where something is missing.
        test: The test split that the run was scored on; None where something was missing before.
    """

    missing: tuple[str, ...]
    reloaded: Reloaded | None = None
    test: data.Split | None = None


def check(evidence: Evidence, run: PastRun, model_uri: str) -> Checked:
    """Load the model, and let it predict the test split that the run was scored on.

    Raises:
        UserError: The test split cannot be had here.
    """
    if evidence.config is None or evidence.missing:
        return Checked(evidence.missing)
    test = find_test_split(evidence.config, run.tags["data.test_digest"])
    reloaded = reload(model_uri, test.images)
    return Checked(() if reloaded else ("a model that can be loaded",), reloaded, test)


def reload(model_uri: str, images: npt.NDArray[np.uint8]) -> Reloaded | None:
    """Load the model and let it predict; None where its files make no model."""
    with quiet.library_noise():  # only now: TensorFlow takes seconds
        import keras
        import mlflow.pyfunc

    keras.config.disable_interactive_logging()  # Keras would draw bars on stdout
    # A copy, since MLflow writes a note of its own beside what it loads.
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=scratch))
            num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            loaded = mlflow.pyfunc.load_model(str(folder))
            signature = describe_schema(loaded.metadata)
            probabilities = np.asarray(loaded.predict(images))
        except (MlflowException, OSError, ValueError, TypeError, AttributeError, KeyError):
            return None  # whatever is damaged: files, schema, weights
    return Reloaded(signature=signature, num_bytes=num_bytes, probabilities=probabilities)


def find_test_split(config: Config, test_digest: str) -> data.Split:
    """Return the test split that a run was scored on.

    Raises:
        UserError: The data cannot be had here, or is other data.
    """
    test = data.find(config.data).test
    if test.digest != test_digest:
        raise UserError(
            f"the test split that is found here ({test.digest[:12]}) is not the run's ({test_digest[:12]}): its "
            "predictions cannot be checked"
        )
    return test


def describe_schema(metadata: "Model") -> str:
    """Return the signature of a logged model as `gates.describe_signature` writes it.

    Raises:
        AttributeError: It has none.
    """
    return describe_signature(_specs(metadata.signature.inputs), _specs(metadata.signature.outputs))


def _specs(schema: Iterable[object]) -> list[tuple[str, Sequence[int]]]:
    return [(str(spec.type), spec.shape) for spec in schema]  # type: ignore[attr-defined]


def _split(run: MlflowEntity | PastRun) -> tuple[str, ...]:
    params = run.params if isinstance(run, PastRun) else run.data.params
    return tuple(str(params.get(key)) for key in _SPLIT_KEYS)


def _finished(store: MlflowStore, experiments: list[str]) -> list[MlflowEntity]:
    """Return the finished runs that may be promoted, the newest first."""
    finished = ("attributes.status = 'FINISHED'",)
    found = [
        entity
        for kind in KINDS
        for entity in mlflow_runs.search(store, experiments, {"kind": kind}, conditions=finished)
    ]
    return sorted(found, key=lambda entity: int(entity.info.start_time), reverse=True)


def _candidate(store: MlflowStore, entity: MlflowEntity, *, why: str) -> Candidate | None:
    model = mlflow_runs.find_model(store, entity, entity.info.experiment_id)
    return None if model is None else Candidate(mlflow_runs.read(store, entity), model.model_id, why)


def _get(store: MlflowStore, run_id: str) -> MlflowEntity | None:
    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
