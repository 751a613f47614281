"""The stages of a run: data, model, train, evaluate, each tracked as it happens."""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import keras
import numpy as np

from mnist_pipeline.config import functions
from mnist_pipeline.config.sections import Config, TrainConfig
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.evaluate.evaluation import Evaluation, evaluate
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.model.prediction import with_probabilities
from mnist_pipeline.pipeline.checkpoints import Checkpoints, has_checkpoints
from mnist_pipeline.pipeline.fingerprint import deciding
from mnist_pipeline.pipeline.model_summary import summarise
from mnist_pipeline.pipeline.names import describe_run, name_run
from mnist_pipeline.pipeline.provenance import code_tags
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.pipeline.run import RunResult, Trainer
from mnist_pipeline.system.aside import Aside, aside
from mnist_pipeline.tracking.record import Kind, Metric, Tag, name_kept, read_epoch_metrics
from mnist_pipeline.tracking.tracker import Content, Run, RunSpec, Tracker, log_contents
from mnist_pipeline.train.epochs import Epoch, History, TrainState
from mnist_pipeline.train.fit import find_kept_epoch, fit, require_finite
from mnist_pipeline.train.runtime import enough_memory, start_tensorflow

NUM_COMPARED_IMAGES = 1000

_log = logging.getLogger(__name__)


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
    state = checkpoints.load()
    with contextlib.ExitStack() as stack, enough_memory():
        _report_start(dataset, state, num_epochs=config.train.num_epochs)
        summary = summarise(model, dataset, name=config.model.name)
        log = EpochLog()

        def begin() -> None:
            spec = RunSpec(
                kind=kind,
                name=name_run(config) if kind == Kind.TRAIN else f"{kind} {name_run(config)}",
                description=describe_run(config, dataset),
                params=config.flat(),
                tags={**request.tags, **_model_tags(config), **code_tags(), **(tags or {})},
                resume_id=checkpoints.id,
            )
            tracked = stack.enter_context(tracker.run(spec))
            _report_resumed(request, tracker, tracked, state)
            log.open(tracked, state)
            _log_beginning(request, summary, tracked)

        if trainer is None:
            # MLflow takes two seconds to import, and the first figures one: both while the first epochs are computed.
            with aside(begin) as beginning:
                history = _train_model(model, request, log, checkpoints, beginning, state=state, on_epoch=on_epoch)
        else:  # other runs use this process at the same time, and drawing is not made for that
            begin()
            history = _train_elsewhere(trainer, model, request, log.run, checkpoints)
        tracked = log.run
        log.add(history)
        kept = history[find_kept_epoch(history, config.train) - 1]
        evaluation = evaluate(model, dataset.test, class_names=dataset.class_names, config=config.evaluate)
        require_finite(evaluation.score.loss, what="test loss", config=config.train)

        last = history[-1]
        with aside(partial(_log_scores, history, kept, evaluation, request, tracked)) as scores:
            scores.start()
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
        request=request,
        metrics={**metrics, **total},
        predictions=evaluation.predictions,
        digest=digest,
    )


class EpochLog:
    """Logs each epoch once, as soon as the run is open."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._num_logged = 0
        self._adding = threading.Lock()

    @property
    def run(self) -> Run:
        """The run, which is open."""
        assert self._run is not None
        return self._run

    def open(self, run: Run, state: TrainState | None) -> None:
        """Log the epochs of `state` into the run, and from now on every other epoch."""
        self._run = run
        self.add(state.history if state else ())

    def add(self, history: Sequence[Epoch]) -> None:
        """Log those of the epochs that are not logged yet, if the run is open."""
        if self._run is None:
            return
        with self._adding:
            for epoch in history[self._num_logged :]:
                self._run.log_metrics(read_epoch_metrics(epoch), step=epoch.number, timestamp_ms=epoch.ended_ms)
            self._num_logged = max(self._num_logged, len(history))


def _log_beginning(request: Request, summary: Mapping[str, Content], tracked: Run) -> None:
    """Log what is known before the training, and prepare what comes after it."""
    from mnist_pipeline.pipeline import artifacts  # imported here, because drawing takes half a second to import

    log_contents(tracked, summary)
    artifacts.log_surroundings(request, tracked)
    artifacts.log_data(request.dataset, tracked)
    artifacts.log_augmentation(request.dataset, request.config.train, tracked)
    tracked.prepare_model()


def _log_scores(history: History, kept: Epoch, evaluation: Evaluation, request: Request, tracked: Run) -> None:
    from mnist_pipeline.pipeline import artifacts

    artifacts.log_training(history, tracked, kept=kept.number)
    artifacts.log_evaluation(evaluation, request.dataset, tracked)


def _model_tags(config: Config) -> dict[str, str]:
    return {} if functions.is_ours(config.model.target) else {Tag.MODEL_TARGET: config.model.target}


def _report_start(dataset: Dataset, state: TrainState | None, *, num_epochs: int) -> None:
    """Report where an interrupted run is resumed, and the data."""
    if state is not None:
        _log.info("resume    after epoch %d of %d", len(state.history), num_epochs)
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    _log.info("data      %s: %s images, from %s", dataset.name, sizes, dataset.attempts[-1].source)


def _report_resumed(request: Request, tracker: Tracker, tracked: Run, state: TrainState | None) -> None:
    """Report what became of an interrupted run, where that is not what the user expects."""
    if state is None and tracked.is_resumed:
        _log.info("resume    the same run, from its beginning")
    elif state is None:
        _report_older_version(request, tracker)
    elif not tracked.is_resumed:
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
    log: EpochLog,
    checkpoints: Checkpoints,
    beginning: Aside,
    *,
    state: TrainState | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> History:
    def save(state: TrainState) -> None:
        # In this order: should the command be killed in between, the next one sends the very same points.
        checkpoints.save(state)
        log.add(state.history)

    def go_on(epoch: Epoch) -> None:
        beginning.check()
        if on_epoch is not None:
            on_epoch(epoch)

    return fit(
        model,
        request.dataset,
        request.config.train,
        start=state,
        on_traced=beginning.start,
        checkpoint=save,
        on_epoch=go_on,
    )


def _train_elsewhere(
    trainer: Trainer, model: keras.Model, request: Request, tracked: Run, checkpoints: Checkpoints
) -> History:
    """Let the model be trained elsewhere, and bring it to the state of the last checkpoint."""
    for point in trainer(checkpoints):
        tracked.log_metrics(point.metrics, step=point.number, timestamp_ms=point.ended_ms)
    return fit(model, request.dataset, request.config.train, start=checkpoints.load())


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
