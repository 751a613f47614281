"""Reproduction: a tracked run is trained again, as a new run with the code that is installed, and compared with it."""

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.model.catalogue import build
from mnist_pipeline.pipeline import stages
from mnist_pipeline.pipeline.checkpoints import Checkpoints
from mnist_pipeline.pipeline.names import describe_training, name_run
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.pipeline.verdict import Finding, Verdict
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import logged_model
from mnist_pipeline.tracking import runs as records
from mnist_pipeline.tracking.logged_model import BadModelError
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import (
    PROBABILITY,
    Kind,
    Metric,
    Point,
    RecordError,
    RunRecord,
    Tag,
    read_epoch_metrics,
)
from mnist_pipeline.tracking.tracker import RunSpec, Tracker
from mnist_pipeline.train.epochs import Epoch
from mnist_pipeline.train.fit import fit
from mnist_pipeline.train.runtime import enough_memory, start_tensorflow

KINDS = (Kind.TRAIN, Kind.TRIAL, Kind.CONFIRM, Kind.FINAL)
"""The kinds of runs that can be reproduced."""

TESTED = (Kind.TRAIN, Kind.FINAL)
"""Those among them that were scored on the test split and have a model."""

_TEST_METRICS = (Metric.TEST_LOSS, Metric.TEST_ACCURACY, Metric.CALIBRATION_ERROR)

Weights = Sequence[npt.NDArray[np.float32]]


class _EnoughError(Exception):
    """As many epochs as the original has are trained."""


def train_again(
    original: RunRecord,
    request: Request,
    tracker: Tracker,
    *,
    num_epochs: int,
    on_epoch: Callable[[Epoch], None],
) -> str:
    """Train a run again as a new run, from its beginning; return the new run's id.

    The test split is scored only if the original was: a trial stays untested.

    Args:
        original: One of the kinds in `KINDS`.
        request: Its configuration and data.
        tracker: Where the new run goes.
        num_epochs: How many the original has; a pruned trial has fewer than it asked for.
        on_epoch: Called after every epoch.
    """
    tags = {Tag.REPRODUCED: original.run_id}
    unique = f"reproduction-{uuid.uuid4().hex}"
    if original.kind in TESTED:
        folder = paths.checkpoints_dir() / unique
        result = stages.carry_out(
            request, tracker, Checkpoints(folder), kind=Kind.REPRODUCTION, tags=tags, on_epoch=on_epoch
        )
        shutil.rmtree(folder, ignore_errors=True)
        return result.run_id
    config, dataset = request.config, request.dataset
    start_tensorflow(config.num_threads)
    model = build(
        config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed
    )
    spec = RunSpec(
        kind=Kind.REPRODUCTION,
        name=f"{Kind.REPRODUCTION} {name_run(config)}",
        description=f"{original.name}, trained again: {describe_training(config)}.",
        params=config.flat(),
        tags={**request.tags, **tags},
        resume_id=unique,
    )
    with tracker.run(spec) as tracked, enough_memory():

        def follow(epoch: Epoch) -> None:
            tracked.log_metrics(read_epoch_metrics(epoch), step=epoch.number, timestamp_ms=epoch.ended_ms)
            on_epoch(epoch)
            if epoch.number == num_epochs:
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            fit(model, dataset, config.train, on_epoch=follow)
    return tracked.run_id


def require_kind(original: RunRecord) -> None:
    """Refuse a run that cannot be reproduced.

    Raises:
        UserError: It is not one that trained a model to its end.
    """
    if original.kind not in KINDS or not original.is_finished:
        what = (original.kind or "run of another program") if original.is_finished else f"{original.status} run"
        raise UserError(f"{original.label} is a {what}: name a finished run of kind {', '.join(KINDS)}")


def judge(
    store: MlflowStore,
    original: RunRecord,
    new_id: str,
    *,
    changes: tuple[Finding, ...],
    epochs: tuple[Sequence[Point], Sequence[Point]],
) -> Verdict:
    """Compare the new run with the original.

    Args:
        store: Where both are.
        original: The run that was trained again.
        new_id: Of the new run.
        changes: What `find_changes` found.
        epochs: Of the original and of the new run.
    """
    found = records.get(store, new_id)
    assert found is not None
    results = [compare_epochs(*epochs)]
    if original.kind in TESTED:
        results += [
            compare_models(store, original, found),
            compare_test(original.metrics, found.metrics),
            compare_predictions(original, found),
        ]
    is_identical = all(one.is_same for one in results)
    return Verdict(original.run_id, new_id, is_identical, changes, tuple(results))


def compare_epochs(before: Sequence[Point], after: Sequence[Point]) -> Finding:
    """Compare every metric of every epoch but the times."""
    if not before:
        return Finding("epochs", None, "the run has logged none")
    for old, new in zip(before, after, strict=False):
        for name, value in old.metrics.items():
            if name != Metric.EPOCH_SEC and new.metrics.get(name) != value:
                return Finding(
                    "epochs", False, f"from epoch {old.number} on: {name} {value!r}, now {new.metrics[name]!r}"
                )
    if len(before) != len(after):
        return Finding("epochs", False, f"{len(before)} epochs, now {len(after)}")
    return Finding("epochs", True)


def compare_test(before: Mapping[str, float], after: Mapping[str, float]) -> Finding:
    """Compare the metrics of the test split."""
    for name in _TEST_METRICS:
        if before.get(name) != after.get(name):
            return Finding("test", False, f"{name} {before.get(name)!r}, now {after.get(name)!r}")
    return Finding("test", True)


def compare_predictions(before: RunRecord, after: RunRecord) -> Finding:
    """Compare the predictions for every test image."""
    try:
        old, new = before.read_predictions(), after.read_predictions()
    except RecordError as error:
        return Finding("predictions", None, str(error))
    if list(old) != list(new) or len(old) != len(new):
        return Finding("predictions", False, "of other images or classes")
    if old.equals(new):
        return Finding("predictions", True)
    num_changed = int((old["predicted"] != new["predicted"]).sum())
    return Finding(
        "predictions",
        False,
        f"{num_changed:,} of {len(old):,} images have another class; the probabilities differ by up to "
        f"{_largest_change(old, new):.2g}",
    )


def _largest_change(old: pd.DataFrame, new: pd.DataFrame) -> float:
    columns = [column for column in old if str(column).startswith(PROBABILITY)]
    return float(np.abs(old[columns].to_numpy() - new[columns].to_numpy()).max())


def compare_models(store: MlflowStore, before: RunRecord, after: RunRecord) -> Finding:
    """Compare the weights of the models that two runs have logged."""
    weights = []
    for one in (before, after):
        model = records.find_model(store, one)
        if model is None:
            return Finding("weights", None, f"{one.label} has no model any more")
        try:
            folder = records.open_model_folder(store, model)
            network = logged_model.load(folder, None, target=one.tags.get(Tag.MODEL_TARGET)).network
        except BadModelError as error:
            return Finding("weights", None, f"the model of {one.label} cannot be loaded ({error})")
        weights.append(network.get_weights())
    return compare_weights(*weights)


def compare_weights(before: Weights, after: Weights) -> Finding:
    """Compare the weights of two models."""
    if [array.shape for array in before] != [array.shape for array in after]:
        return Finding("weights", False, "other shapes")
    digests = [digest_weights(weights)[:12] for weights in (before, after)]
    if digests[0] == digests[1]:
        return Finding("weights", True)
    largest = max(float(np.abs(old - new).max()) for old, new in zip(before, after, strict=True) if old.size)
    return Finding("weights", False, f"SHA-256 {digests[0]}, now {digests[1]}; they differ by up to {largest:.2g}")


def digest_weights(weights: Weights) -> str:
    """Return the SHA-256 of weights, in hexadecimal."""
    digest = hashlib.sha256()
    for array in weights:
        digest.update(array.tobytes())
    return digest.hexdigest()
