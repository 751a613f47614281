"""The artifacts that each stage leaves in the store: its tables and its figures."""

import json
import logging

import numpy as np
import pandas as pd

from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data import splits
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.data.figures import draw_class_counts, draw_samples
from mnist_pipeline.evaluate.evaluation import Evaluation
from mnist_pipeline.evaluate.figures import draw_confusion, draw_mistakes, draw_predictions, draw_reliability
from mnist_pipeline.pipeline import provenance
from mnist_pipeline.pipeline.fingerprint import describe_identity
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.plotting import to_png
from mnist_pipeline.system import paths
from mnist_pipeline.tracking.record import NUM_SHOWN_PREDICTIONS, Artifact, show_tables, tabulate_history
from mnist_pipeline.tracking.tracker import Run, log_contents
from mnist_pipeline.train.augmentation import describe_risk
from mnist_pipeline.train.epochs import History
from mnist_pipeline.train.figures import draw_augmented, draw_learning_curves

_log = logging.getLogger(__name__)


def log_surroundings(request: Request, tracked: Run) -> None:
    """Log the resolved configuration, the overrides, the versions, the machine, and uncommitted changes of the code."""
    log_contents(
        tracked,
        {Artifact.CONFIG: request.config.to_yaml(), Artifact.OVERRIDES: request.overrides_to_yaml()},
    )
    identity = {Artifact.IDENTITY: describe_identity(request.config, data_digest=request.found.identity)}
    log_contents(tracked, {**provenance.describe(paths.checkout()), **identity})


def log_data(dataset: Dataset, tracked: Run) -> None:
    """Log the splits with their digests, the number of images per class, and the first images of each class."""
    source = dataset.attempts[-1].source
    for name, split in dataset.splits.items():
        tracked.log_split(split, name=f"{dataset.name}-{name}", context=name, source=source)
    counts = splits.count_classes(dataset)
    digests = {"dataset": dataset.digest, **{name: split.digest for name, split in dataset.splits.items()}}
    log_contents(
        tracked,
        {
            Artifact.CLASS_COUNTS: counts.to_csv(index=False),
            Artifact.CLASS_COUNTS_PICTURE: to_png(draw_class_counts(counts, name=dataset.name)),
            Artifact.SAMPLES_PICTURE: to_png(draw_samples(dataset.train, class_names=dataset.class_names)),
            Artifact.DIGESTS: json.dumps(digests, indent=2),
        },
    )


def log_augmentation(dataset: Dataset, config: TrainConfig, tracked: Run) -> None:
    """Log how images are changed for the training, if they are, and warn if that may change their classes."""
    if not config.augment.is_on():
        return
    risk = describe_risk(config.augment, dataset.class_names)
    if risk:
        _log.warning("%s", risk)
    figure = draw_augmented(dataset.train, config.augment, class_names=dataset.class_names, seed=config.seed)
    log_contents(tracked, {Artifact.AUGMENTED_PICTURE: to_png(figure)})


def log_training(history: History, tracked: Run, *, kept: int) -> None:
    """Log the learning curves and the table they are drawn from; `kept` is the epoch whose weights the model has."""
    log_contents(
        tracked,
        {
            Artifact.HISTORY: tabulate_history(history).to_csv(index=False),
            Artifact.LEARNING_CURVES_PICTURE: to_png(draw_learning_curves(history, kept=kept)),
        },
    )


def log_evaluation(evaluation: Evaluation, dataset: Dataset, tracked: Run) -> None:
    """Log every table and figure of the evaluation; two of the tables so that MLflow compares them between runs."""
    test, class_names = dataset.test, dataset.class_names
    first = draw_predictions(evaluation, test, class_names=class_names, most=NUM_SHOWN_PREDICTIONS)
    log_contents(
        tracked,
        {
            Artifact.PER_CLASS: evaluation.per_class.to_csv(index=False),
            Artifact.PER_CLASS_TABLE: evaluation.per_class.round(4).to_json(orient="split", index=False),
            Artifact.MISTAKES_TABLE: _tabulate_mistakes(evaluation, class_names).to_json(orient="split", index=False),
            Artifact.CONFUSION: evaluation.confusion.to_csv(),
            Artifact.CALIBRATION: evaluation.calibration.to_csv(index=False),
            Artifact.PREDICTIONS: lambda path: evaluation.predictions.to_parquet(path, index=False),
            Artifact.CONFUSION_PICTURE: to_png(draw_confusion(evaluation)),
            Artifact.RELIABILITY_PICTURE: to_png(draw_reliability(evaluation)),
            Artifact.MISTAKES_PICTURE: to_png(draw_mistakes(evaluation, test, class_names=class_names)),
            Artifact.FIRST_PREDICTIONS_PICTURE: to_png(first),
        },
    )
    tracked.set_tags(show_tables(Artifact.PER_CLASS_TABLE, Artifact.MISTAKES_TABLE))


def _tabulate_mistakes(evaluation: Evaluation, class_names: tuple[str, ...]) -> pd.DataFrame:
    names = np.array(class_names)
    return pd.DataFrame(
        {
            "image": evaluation.mistakes["index"],
            "label": names[evaluation.mistakes["label"]],
            "predicted": names[evaluation.mistakes["predicted"]],
            "probability": evaluation.mistakes["confidence"].astype(float).round(4),
        }
    )
