"""The story of a run, from top to bottom: data, model, train, evaluate, each tracked as it happens."""

import hashlib
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.evaluate.evaluation import Evaluation, evaluate
from mnist_pipeline.model.dense import build
from mnist_pipeline.model.prediction import with_probabilities
from mnist_pipeline.pipeline.artifacts import (
    Stages,
    track_data,
    track_evaluation,
    track_model,
    track_surroundings,
    track_training,
)
from mnist_pipeline.pipeline.checkpoints import Checkpoints, claim
from mnist_pipeline.pipeline.request import Request, code_tags, describe, describe_name
from mnist_pipeline.tracking.tracker import RESUME_TAG, PastRun, Run, Tracker
from mnist_pipeline.train.epochs import Epoch, History, TrainState
from mnist_pipeline.train.fit import fit, require_finite
from mnist_pipeline.train.runtime import enough_memory, set_num_threads

NUM_COMPARED_IMAGES = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves behind.

    Attributes:
        metrics: The last value of every metric, as logged.
        predictions: One row a test image, as in `Evaluation`.
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


def execute(request: Request, tracker: Tracker, *, on_epoch: Callable[[Epoch], None] | None = None) -> RunResult:
    """Make sure that the run has been made: find it done, or go on with it where it was interrupted, or begin it.

    Raises:
        UserError: Another command is at this run, the loss is not finite, there is too little space or memory, or
            TensorFlow already runs with another number of threads.
    """
    mark = request.tags["fingerprint"]
    with claim(mark, wait=request.config.wait) as checkpoints:
        if tracker.find_finished({RESUME_TAG: checkpoints.id}):
            checkpoints.clear()  # its command was killed between its last two acts
        # A run that fell back on these data is not the one that asked for them: it cannot be promoted.
        alike = {"kind": "train", "fingerprint": mark, "data.requested": request.tags["data.requested"]}
        past = None if request.config.force else tracker.find_finished(alike)
        result = recall(past, request) if past else None
        if result is None:
            result = perform(request, tracker, checkpoints, on_epoch=on_epoch)
        checkpoints.clear()
    return result


def recall(past: PastRun, request: Request) -> RunResult | None:
    """Return the result of a finished run; None where its predictions can no longer be read."""
    try:
        predictions = pd.read_parquet(io.BytesIO(past.read("evaluate/predictions.parquet")))
    except (OSError, ValueError) as error:
        _log.warning("run %s is finished, but its predictions cannot be read (%s): it does not count", past.name, error)
        return None
    _log.info("done      run %s has the same fingerprint; force=true trains again, as a new run", past.name)
    return RunResult(
        run_id=past.run_id,
        name=past.name,
        address=past.address,
        config=request.config,
        dataset=request.dataset,
        metrics=dict(past.metrics),
        predictions=predictions,
        digest=past.tags["result.digest"],
    )


def perform(
    request: Request,
    tracker: Tracker,
    checkpoints: Checkpoints,
    *,
    kind: str = "train",
    tags: Mapping[str, str] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> RunResult:
    """Build, train and evaluate a model, and track all of it; go on from the last checkpoint where there is one.

    Every step may be taken a second time after the command was killed, and then leaves what the first time left.
    """
    config, dataset = request.config, request.dataset
    started = time.perf_counter()
    name = describe_name(config) if kind == "train" else f"{kind} {describe_name(config)}"
    state = checkpoints.load()
    with (
        tracker.run(
            kind=kind,
            name=name,
            description=describe(config, dataset),
            params=config.flat(),
            tags={**request.tags, **code_tags(), **(tags or {})},
            resume_id=checkpoints.id,
        ) as tracked,
        enough_memory(),
    ):
        tell_start(state, tracked, num_epochs=config.train.num_epochs)
        stages = Stages(tracked)
        track_surroundings(request, stages)
        track_data(dataset, tracked, stages)

        set_num_threads(config.train.num_threads)
        keras.backend.clear_session()  # a run must not depend on what was built before it in this process
        model = build(
            config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed
        )
        track_model(model, dataset, stages)

        def keep(state: TrainState) -> None:
            # In this order: should the command be killed in between, the next one sends the very same points.
            checkpoints.save(state)
            log_epochs(tracked, state.history[-config.train.checkpoint_every :])

        log_epochs(tracked, state.history if state else ())
        history = fit(model, dataset, config.train, start=state, checkpoint=keep, on_epoch=on_epoch)
        track_training(history, stages)

        evaluation = evaluate(model, dataset.test, class_names=dataset.class_names, config=config.evaluate)
        require_finite(evaluation.score.loss, what="test loss", config=config.train)
        track_evaluation(evaluation, dataset, tracked, stages)

        last = history[-1]
        test_metrics = {
            "test/loss": evaluation.score.loss,
            "test/accuracy": evaluation.score.accuracy,
            "test/calibration_error": evaluation.calibration_error,
            "time/train_sec": sum(epoch.train_sec for epoch in history),
            "model/num_parameters": float(model.count_params()),
        }
        # With the last epoch's time stamp, which the checkpoint holds: sent twice they are the same points.
        tracked.log_metrics(test_metrics, step=last.number, timestamp_ms=last.ended_ms)
        metrics = {**last.metrics(), **test_metrics}
        log_checked_model(model, dataset, tracked, metrics=metrics, epoch=last)
        digest = digest_result(model, history, evaluation)
        tracked.set_tags(
            {"result.digest": digest, "mlflow.note.content": describe(config, dataset, score=evaluation.score)}
        )
        tracked.log_files()
        total = {"time/total_sec": time.perf_counter() - started}
        tracked.log_metrics(total, step=last.number, timestamp_ms=last.ended_ms)
    return RunResult(
        run_id=tracked.run_id,
        name=name,
        address=tracked.address,
        config=config,
        dataset=dataset,
        metrics={**metrics, **total},
        predictions=evaluation.predictions,
        digest=digest,
    )


def tell_start(state: TrainState | None, tracked: Run, *, num_epochs: int) -> None:
    """Say where an interrupted run goes on."""
    if state is None:
        if tracked.is_resumed:
            _log.info("resume    the same run, from its beginning")
        return
    _log.info("resume    after epoch %d of %d", len(state.history), num_epochs)
    if not tracked.is_resumed:
        _log.warning("the run that was interrupted is no longer in the store: its epochs become part of a new run")


def log_epochs(tracked: Run, epochs: Sequence[Epoch]) -> None:
    """Log the metrics of epochs."""
    for epoch in epochs:
        tracked.log_metrics(epoch.metrics(), step=epoch.number, timestamp_ms=epoch.ended_ms)


def digest_result(model: keras.Model, history: History, evaluation: Evaluation) -> str:
    """Return the SHA-256 of the weights, of every metric but the times, and of the predictions."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    scores = [*((epoch.train, epoch.validation) for epoch in history), evaluation.score, evaluation.calibration_error]
    digest.update(repr(scores).encode())  # of floats it has every bit
    for column in evaluation.predictions:
        digest.update(evaluation.predictions[column].to_numpy().tobytes())
    return digest.hexdigest()


def log_checked_model(
    model: keras.Model, dataset: Dataset, tracked: Run, *, metrics: Mapping[str, float], epoch: Epoch
) -> None:
    """Log the model as of `epoch`, load it as a caller would, and require of it the probabilities of the trained one.

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
            f"the logged model gives {reloaded.dtype} that differ from the trained model's by "
            f"{np.abs(reloaded - expected).max():.2g}"
        )
