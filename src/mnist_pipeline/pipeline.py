"""The story of a run, from top to bottom: data, model, train, evaluate, each tracked as it happens."""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_pipeline import composing, data, environment, figures, paths
from mnist_pipeline.checkpoint import Checkpoints, claim
from mnist_pipeline.config import Config, MnistConfig
from mnist_pipeline.data import Dataset
from mnist_pipeline.evaluate import Evaluation, evaluate
from mnist_pipeline.fingerprint import fingerprint
from mnist_pipeline.mnist import MnistUnavailableError
from mnist_pipeline.model import build, look_untrained, summarise_layers, with_probabilities
from mnist_pipeline.tracking import CHECKPOINT_TAG, PastRun, Run, Tracker
from mnist_pipeline.train import Epoch, History, TrainState, fit, require_finite, set_num_threads

NUM_SHOWN_PREDICTIONS = 8
NUM_COMPARED_IMAGES = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user asked for, and what became of it before a run was opened.

    Attributes:
        config: What the run does; after a fallback not what was asked for.
        overrides: The command line's overrides, as they were given.
        dataset: Found, verified and split.
        tags: What is to be remembered of how the data was found.
    """

    config: Config
    overrides: tuple[str, ...]
    dataset: Dataset
    tags: dict[str, str]


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


def prepare(
    config: Config, overrides: Sequence[str], *, compose: Callable[[list[str]], Config] = composing.compose
) -> Request:
    """Find the data, before a run is opened. Where MNIST cannot be had, go on with digits if the configuration says so.

    The digits group then replaces `data`: it is composed anew, without the overrides that were meant for MNIST.

    Args:
        config: What was asked for.
        overrides: The overrides that it was composed from.
        compose: Composes others in the same way.

    Raises:
        MnistUnavailableError: No source has MNIST and `data.fallback` is null.
    """
    tags = {"data.requested": config.data.name}
    try:
        dataset = data.load(config.data)
        attempts = dataset.attempts
    except MnistUnavailableError as error:
        assert isinstance(config.data, MnistConfig)
        if config.data.fallback is None:
            raise
        fallback = config.data.fallback.value
        kept, dropped = composing.without_group(overrides, "data")
        _log.warning("%s", error)
        _log.warning("FALLBACK: this run uses data=%s instead of data=%s", fallback, config.data.name)
        if dropped:
            _log.warning("FALLBACK: dropped, since they were meant for %s: %s", config.data.name, " ".join(dropped))
            tags["data.dropped_overrides"] = " ".join(dropped)
        tags["data.fallback"] = fallback
        config = compose([*kept, f"data={fallback}"])
        dataset = data.load(config.data)
        attempts = (*error.attempts, *dataset.attempts)
    tags["data.sources"] = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)[:5000]
    tags["data.digest"] = dataset.digest
    tags["fingerprint"] = fingerprint(config, data_digest=dataset.digest)
    return Request(config=config, overrides=tuple(overrides), dataset=dataset, tags=tags)


def run(request: Request, tracker: Tracker, *, on_epoch: Callable[[Epoch], None] | None = None) -> RunResult:
    """Make sure that the run has been made: find it done, or go on with it where it was interrupted, or begin it.

    Raises:
        UserError: Another command is at this run, the loss is not finite, the disk is full, or TensorFlow already runs
            with another number of threads.
    """
    mark = request.tags["fingerprint"]
    with claim(mark, wait=request.config.wait) as checkpoints:
        if tracker.find_finished({CHECKPOINT_TAG: checkpoints.id}):
            checkpoints.clear()  # its command was killed between its last two acts
        past = None if request.config.force else tracker.find_finished({"kind": "train", "fingerprint": mark})
        result = recall(past, request) if past else None
        if result is None:
            result = perform(request, tracker, checkpoints, on_epoch=on_epoch)
        checkpoints.clear()
    return result


def recall(past: PastRun, request: Request) -> RunResult | None:
    """Return the result of a finished run; None where its predictions can no longer be read."""
    try:
        predictions = pd.read_parquet(past.path("evaluate/predictions.parquet"))
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
    on_epoch: Callable[[Epoch], None] | None = None,
) -> RunResult:
    """Build, train and evaluate a model, and track all of it; go on from the last checkpoint where there is one.

    Every step may be taken a second time after the command was killed, and then leaves what the first time left.
    """
    config, dataset = request.config, request.dataset
    started = time.perf_counter()
    name = describe_name(config)
    state = checkpoints.load()
    with (
        tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch,
        tracker.run(
            kind="train",
            name=name,
            description=describe(config, dataset),
            params=config.flat(),
            tags={**request.tags, **code_tags()},
            checkpoint_id=checkpoints.id,
        ) as tracked,
    ):
        tell_start(state, tracked, num_epochs=config.train.num_epochs)
        stages = _Stages(tracked, Path(scratch))
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
        track_evaluation(evaluation, dataset, stages)

        last = history[-1]
        test_metrics = {
            "test/loss": evaluation.score.loss,
            "test/accuracy": evaluation.score.accuracy,
            "test/calibration_error": evaluation.calibration_error,
            "time/train_sec": sum(epoch.train_sec for epoch in history),
        }
        # With the last epoch's time stamp, which the checkpoint holds: sent twice they are the same points.
        tracked.log_metrics(test_metrics, step=last.number, timestamp_ms=last.ended_ms)
        metrics = {**last.metrics(), **test_metrics}
        log_checked_model(model, dataset, tracked, metrics=metrics, epoch=last)
        digest = digest_result(model, history, evaluation)
        tracked.set_tags({"result.digest": digest})
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


def describe_name(config: Config) -> str:
    """Return a run's name: the data and what is swept most often."""
    return (
        f"{config.data.name}-w{config.model.hidden_width}-d{config.model.dropout_rate:g}"
        f"-e{config.train.num_epochs}-s{config.train.seed}"
    )


def describe(config: Config, dataset: Dataset) -> str:
    """Return what MLflow shows as a run's description, in Markdown."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    return (
        f"**{dataset.name}** ({sizes}); one hidden layer of {config.model.hidden_width} units, dropout "
        f"{config.model.dropout_rate:g}; Adam {config.train.learning_rate:g}, batches of {config.train.batch_size}, "
        f"{config.train.num_epochs} epochs, seed {config.train.seed}."
    )


def code_tags() -> dict[str, str]:
    """Return the tags that say which code ran."""
    root = paths.checkout()
    state = environment.git_state(root) if root else None
    if state is None:
        return {}
    return {"mlflow.source.git.commit": state.commit, "git.dirty": str(state.is_dirty).lower()}


class _Stages:
    """Writes a stage's files into a folder of its own and logs the folder."""

    def __init__(self, tracked: Run, scratch: Path) -> None:
        self._tracked = tracked
        self._scratch = scratch

    def log(self, stage: str, contents: dict[str, str | Figure | Callable[[Path], object]]) -> None:
        """Log files, by name: a text, a figure, or a function that writes the file."""
        folder = self._scratch / stage
        folder.mkdir()
        for name, content in contents.items():
            if isinstance(content, str):
                (folder / name).write_text(content, encoding="utf-8")
            elif isinstance(content, Figure):
                figures.save(content, folder / name)
            else:
                content(folder / name)
        self._tracked.log_artifacts(folder)


def track_surroundings(request: Request, stages: _Stages) -> None:
    """Log the resolved configuration, the overrides, the versions and the machine."""
    stages.log(
        "config",
        {
            "config.yaml": request.config.to_yaml(),
            "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(list(request.overrides))),
        },
    )
    stages.log(
        "environment",
        {
            "versions.json": json.dumps(environment.versions(), indent=2),
            "machine.json": json.dumps(environment.machine(), indent=2),
        },
    )


def track_data(dataset: Dataset, tracked: Run, stages: _Stages) -> None:
    """Log the splits with their digests, the count of each class and the first images of each."""
    source = dataset.attempts[-1].source
    for name, split in dataset.splits.items():
        tracked.log_split(split, name=f"{dataset.name}-{name}", context=name, source=source)
    counts = data.count_classes(dataset)
    stages.log(
        "data",
        {
            "class_counts.csv": counts.to_csv(index=False),
            "class_counts.png": figures.draw_class_counts(counts, name=dataset.name),
            "samples.png": figures.draw_samples(dataset.train, class_names=dataset.class_names),
            "digests.json": json.dumps(
                {"dataset": dataset.digest, **{name: split.digest for name, split in dataset.splits.items()}}, indent=2
            ),
        },
    )
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    _log.info("data      %s: %s images, from %s", dataset.name, sizes, source)


def track_model(model: keras.Model, dataset: Dataset, stages: _Stages) -> None:
    """Log the layers, and look at what the untrained model says."""
    layers = summarise_layers(model)
    look = look_untrained(model, dataset.train)
    stages.log(
        "model",
        {
            "layers.csv": layers.to_csv(index=False),
            "summary.txt": layers.to_string(index=False) + f"\n\nparameters: {model.count_params():,}\n",
            "untrained.json": json.dumps(
                {
                    "first_image_probabilities": look.probabilities.tolist(),
                    "loss": look.loss,
                    "expected_loss": look.expected_loss,
                },
                indent=2,
            ),
        },
    )
    _log.info(
        "model     %s: %s parameters; untrained loss %.3f, ln %d = %.3f",
        model.name,
        f"{model.count_params():,}",
        look.loss,
        dataset.num_classes,
        look.expected_loss,
    )


def track_training(history: History, stages: _Stages) -> None:
    """Log the learning curves and the table they are drawn from."""
    table = pd.DataFrame([{"epoch": epoch.number, **epoch.metrics()} for epoch in history])
    stages.log(
        "train",
        {"history.csv": table.to_csv(index=False), "learning_curves.png": figures.draw_learning_curves(history)},
    )


def track_evaluation(evaluation: Evaluation, dataset: Dataset, stages: _Stages) -> None:
    """Log every table and figure of the evaluation."""
    test, class_names = dataset.test, dataset.class_names
    stages.log(
        "evaluate",
        {
            "per_class.csv": evaluation.per_class.to_csv(index=False),
            "confusion.csv": evaluation.confusion.to_csv(),
            "calibration.csv": evaluation.calibration.to_csv(index=False),
            "predictions.parquet": lambda path: evaluation.predictions.to_parquet(path, index=False),
            "confusion.png": figures.draw_confusion(evaluation),
            "reliability.png": figures.draw_reliability(evaluation),
            "mistakes.png": figures.draw_mistakes(evaluation, test, class_names=class_names),
            "first_predictions.png": figures.draw_predictions(
                evaluation, test, class_names=class_names, most=NUM_SHOWN_PREDICTIONS
            ),
        },
    )


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
