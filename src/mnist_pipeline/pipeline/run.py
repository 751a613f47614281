"""The story of a run: data, model, train, evaluate, each tracked as it happens."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import pandas as pd

from mnist_pipeline.config import functions
from mnist_pipeline.config.sections import Config, TrainConfig
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.evaluate.evaluation import Evaluation, evaluate
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.model.prediction import with_probabilities
from mnist_pipeline.pipeline import artifacts
from mnist_pipeline.pipeline.checkpoints import Checkpoints, claim, has_checkpoints
from mnist_pipeline.pipeline.fingerprint import deciding
from mnist_pipeline.pipeline.names import describe_run, name_run
from mnist_pipeline.pipeline.provenance import code_tags
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.system.aside import aside
from mnist_pipeline.tracking.record import (
    Kind,
    Metric,
    Point,
    RecordError,
    RunRecord,
    Tag,
    name_kept,
    read_epoch_metrics,
)
from mnist_pipeline.tracking.tracker import Run, RunSpec, Tracker
from mnist_pipeline.train.epochs import Epoch, History, TrainState
from mnist_pipeline.train.fit import find_kept_epoch, fit, require_finite
from mnist_pipeline.train.runtime import enough_memory, start_tensorflow

NUM_COMPARED_IMAGES = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        metrics: The last value of every metric, as logged.
        predictions: One row per test image, as in `Evaluation`.
        digest: SHA-256 of the weights, of every metric but the times, and of the predictions.
    """

    run_id: str
    name: str
    address: str
    config: Config
    dataset: Dataset
    metrics: dict[str, float]
    predictions: pd.DataFrame
    digest: str


Trainer = Callable[[Checkpoints], Iterator[Point]]
"""Trains a run elsewhere: resumes from the checkpoints, writes further ones, and yields every epoch."""


def execute(
    request: Request,
    tracker: Tracker,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    trainer: Trainer | None = None,
) -> RunResult:
    """Return the result of the requested run: find it if it is finished, resume it if it was interrupted, or start it.

    Args:
        request: Of the run.
        tracker: That tracks it.
        on_epoch: Called after each epoch that is trained here.
        trainer: Trains it elsewhere; by default it is trained here.

    Raises:
        UserError: The run is already in progress, the loss is not finite, there is too little space or memory, or
            TensorFlow already runs with another number of threads.
    """
    fingerprint = request.tags[Tag.FINGERPRINT]
    with claim(fingerprint, wait=request.config.wait) as checkpoints:
        if tracker.find_finished({Tag.RESUME_ID: checkpoints.id}):
            checkpoints.clear()  # its command was killed between its last two steps
        result = None if request.config.force else _recall(request, tracker)
        if result is None:
            result = carry_out(request, tracker, checkpoints, on_epoch=on_epoch, trainer=trainer)
        checkpoints.clear()
    return result


def _recall(request: Request, tracker: Tracker) -> RunResult | None:
    """Return the result of the same run if it has finished before; None if there is none that can be read."""
    # A run that fell back to these data is not the one that was requested for them: it cannot be promoted.
    keys = (Tag.FINGERPRINT, Tag.DATA_REQUESTED)
    past = tracker.find_finished({Tag.KIND: Kind.TRAIN, **{key: request.tags[key] for key in keys}})
    if past is None:
        return None
    try:
        predictions = past.read_predictions()
    except RecordError as error:
        _log.warning("run %s is finished, but does not count: %s", past.name, error)
        return None
    _log.info("done      run %s has the same fingerprint; force=true trains again, as a new run", past.name)
    return _result_of(past, request, predictions)


def _result_of(past: RunRecord, request: Request, predictions: pd.DataFrame) -> RunResult:
    return RunResult(
        run_id=past.run_id,
        name=past.name,
        address=past.address,
        config=request.config,
        dataset=request.dataset,
        metrics=dict(past.metrics),
        predictions=predictions,
        digest=past.tags[Tag.RESULT_DIGEST],
    )


def carry_out(
    request: Request,
    tracker: Tracker,
    checkpoints: Checkpoints,
    *,
    kind: str = Kind.TRAIN,
    tags: Mapping[str, str] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    trainer: Trainer | None = None,
) -> RunResult:
    """Build, train and evaluate a model, and track all of it; resume from the last checkpoint if there is one.

    Every step can be repeated after a kill, and then leaves what it left the first time.
    """
    started = time.perf_counter()
    config, dataset = request.config, request.dataset
    with enough_memory():
        model = _build_model(request)  # before the run is opened: a model that cannot be trained leaves none behind
    name = name_run(config) if kind == Kind.TRAIN else f"{kind} {name_run(config)}"
    spec = RunSpec(
        kind=kind,
        name=name,
        description=describe_run(config, dataset),
        params=config.flat(),
        tags={**request.tags, **_model_tags(config), **code_tags(), **(tags or {})},
        resume_id=checkpoints.id,
    )
    state = checkpoints.load()
    with tracker.run(spec) as tracked, enough_memory():
        _report_start(state, tracked, num_epochs=config.train.num_epochs)
        if state is None and not tracked.is_resumed:
            _report_older_version(request, tracker)
        artifacts.report_data(dataset)
        artifacts.log_model_summary(model, dataset, tracked, name=config.model.name)
        if trainer is None:
            with aside(partial(_log_beginning, request, tracked)) as check:
                history = _train_model(
                    model, request, tracked, checkpoints, state=state, on_epoch=partial(_go_on, check, on_epoch)
                )
        else:  # other runs use this process at the same time, and drawing is not made for that
            _log_beginning(request, tracked)
            history = _train_elsewhere(trainer, model, request, tracked, checkpoints)
        kept = history[find_kept_epoch(history, config.train) - 1]
        evaluation = evaluate(model, dataset.test, class_names=dataset.class_names, config=config.evaluate)
        require_finite(evaluation.score.loss, what="test loss", config=config.train)

        last = history[-1]
        with aside(partial(_log_scores, history, kept, evaluation, request, tracked)):
            metrics = _log_last_metrics(model, history, kept, evaluation, tracked, config=config.train)
            log_checked_model(model, dataset, tracked, metrics=metrics, epoch=last)
        digest = digest_result(model, history, evaluation)
        description = describe_run(config, dataset, score=evaluation.score)
        tracked.set_tags({Tag.RESULT_DIGEST: digest, Tag.DESCRIPTION: description})
        tracked.log_files()
        total = {Metric.TOTAL_SEC: time.perf_counter() - started}
        tracked.log_metrics(total, step=last.number, timestamp_ms=last.ended_ms)
    return RunResult(
        run_id=tracked.run_id,
        name=tracked.name,
        address=tracked.address,
        config=config,
        dataset=dataset,
        metrics={**metrics, **total},
        predictions=evaluation.predictions,
        digest=digest,
    )


def _log_beginning(request: Request, tracked: Run) -> None:
    """Log what is known before the training, and import what its evaluation needs."""
    artifacts.log_surroundings(request, tracked)
    artifacts.log_data(request.dataset, tracked)
    artifacts.log_augmentation(request.dataset, request.config.train, tracked)
    import sklearn.metrics  # noqa: F401 (only to have it)


def _go_on(check: Callable[[], None], on_epoch: Callable[[Epoch], None] | None, epoch: Epoch) -> None:
    check()
    if on_epoch is not None:
        on_epoch(epoch)


def _log_scores(history: History, kept: Epoch, evaluation: Evaluation, request: Request, tracked: Run) -> None:
    artifacts.log_training(history, tracked, kept=kept.number)
    artifacts.log_evaluation(evaluation, request.dataset, tracked)


def _model_tags(config: Config) -> dict[str, str]:
    return {} if functions.is_ours(config.model.target) else {Tag.MODEL_TARGET: config.model.target}


def _report_start(state: TrainState | None, tracked: Run, *, num_epochs: int) -> None:
    """Log where an interrupted run is resumed."""
    if state is None:
        if tracked.is_resumed:
            _log.info("resume    the same run, from its beginning")
        return
    _log.info("resume    after epoch %d of %d", len(state.history), num_epochs)
    if not tracked.is_resumed:
        _log.warning("the interrupted run is not in this experiment any more: its epochs continue in a new run")


def _report_older_version(request: Request, tracker: Tracker) -> None:
    """Log an interrupted run that would have been resumed, had the code and its versions stayed the same."""
    tags = {Tag.KIND: Kind.TRAIN, Tag.DATA_DIGEST: request.found.digest}
    settings = deciding(request.config, data_digest=request.found.identity)["config"]
    for run in tracker.find_interrupted(tags, {key: str(value) for key, value in settings.items()}):
        fingerprint = run.tags.get(Tag.FINGERPRINT)
        if fingerprint != request.tags[Tag.FINGERPRINT] and has_checkpoints(fingerprint):
            _log.warning(
                "the interrupted run %s cannot be resumed, because the code or the versions of its libraries have "
                "changed since: training starts again, as a new run",
                run.label,
            )
            return


def _build_model(request: Request) -> keras.Model:
    config, dataset = request.config, request.dataset
    start_tensorflow(config.num_threads)
    return build(config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed)


def _train_model(
    model: keras.Model,
    request: Request,
    tracked: Run,
    checkpoints: Checkpoints,
    *,
    state: TrainState | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> History:
    config = request.config.train

    def save(state: TrainState) -> None:
        # In this order: should the command be killed in between, the next one sends the very same points.
        checkpoints.save(state)
        _log_epochs(tracked, state.history[-config.checkpoint_every :])

    _log_epochs(tracked, state.history if state else ())
    return fit(model, request.dataset, config, start=state, checkpoint=save, on_epoch=on_epoch)


def _train_elsewhere(
    trainer: Trainer, model: keras.Model, request: Request, tracked: Run, checkpoints: Checkpoints
) -> History:
    """Let the model be trained elsewhere, and bring it to the state of the last checkpoint."""
    for point in trainer(checkpoints):
        tracked.log_metrics(point.metrics, step=point.number, timestamp_ms=point.ended_ms)
    return fit(model, request.dataset, request.config.train, start=checkpoints.load())


def _log_epochs(tracked: Run, epochs: Sequence[Epoch]) -> None:
    for epoch in epochs:
        tracked.log_metrics(read_epoch_metrics(epoch), step=epoch.number, timestamp_ms=epoch.ended_ms)


def _log_last_metrics(
    model: keras.Model, history: History, kept: Epoch, evaluation: Evaluation, tracked: Run, *, config: TrainConfig
) -> dict[str, float]:
    """Log the metrics of the whole training and of the test split; return them with those of the kept epoch."""
    last = history[-1]
    metrics = {
        Metric.TEST_LOSS: evaluation.score.loss,
        Metric.TEST_ACCURACY: evaluation.score.accuracy,
        Metric.CALIBRATION_ERROR: evaluation.calibration_error,
        Metric.TRAIN_SEC: sum(epoch.train_sec for epoch in history),
        Metric.NUM_PARAMETERS: float(model.count_params()),
    }
    of_kept = read_epoch_metrics(kept)
    if config.early_stopping.patience is not None:
        _log.info(
            "kept      epoch %d of %d, the best by %s", kept.number, last.number, config.early_stopping.metric.value
        )
        metrics |= name_kept(kept.number, of_kept)
    # With the last epoch's time stamp, which the checkpoint holds: sent twice they are the same points.
    tracked.log_metrics(metrics, step=last.number, timestamp_ms=last.ended_ms)
    return {**of_kept, **metrics}


def digest_result(model: keras.Model, history: History, evaluation: Evaluation) -> str:
    """Return the SHA-256 of the weights, of every metric but the times, and of the predictions."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    scores = [*((epoch.train, epoch.validation) for epoch in history), evaluation.score, evaluation.calibration_error]
    digest.update(repr(scores).encode())  # the repr of a float has every bit of it
    for column in evaluation.predictions:
        digest.update(evaluation.predictions[column].to_numpy().tobytes())
    return digest.hexdigest()


def log_checked_model(
    model: keras.Model, dataset: Dataset, tracked: Run, *, metrics: Mapping[str, float], epoch: Epoch
) -> None:
    """Log the model as of `epoch`, load it as a caller would, and require the trained model's probabilities of it.

    Raises:
        RuntimeError: They differ.
    """
    complete = with_probabilities(model)
    images = dataset.test.images[:NUM_COMPARED_IMAGES]
    expected = np.asarray(complete(images, training=False))
    predict = tracked.log_model(
        complete, example=images[:1], metrics=metrics, step=epoch.number, timestamp_ms=epoch.ended_ms
    )
    reloaded = predict(images)
    if reloaded.dtype != np.float32 or not np.allclose(reloaded, expected, rtol=0, atol=1e-6):
        raise RuntimeError(
            f"the logged model returns {reloaded.dtype} values that differ from the trained model's by "
            f"{np.abs(reloaded - expected).max():.2g}"
        )
