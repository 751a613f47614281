"""What each stage leaves in the store: its tables, its figures, its files."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_pipeline import plotting
from mnist_pipeline.data import splits
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.data.figures import draw_class_counts, draw_samples
from mnist_pipeline.evaluate.evaluation import Evaluation
from mnist_pipeline.evaluate.figures import (
    NUM_SHOWN_PREDICTIONS,
    draw_confusion,
    draw_mistakes,
    draw_predictions,
    draw_reliability,
)
from mnist_pipeline.model.inspection import look_untrained, summarise_layers
from mnist_pipeline.pipeline import provenance
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.system import files, paths
from mnist_pipeline.tracking.tracker import Run, describe_tables
from mnist_pipeline.train.epochs import History
from mnist_pipeline.train.figures import draw_learning_curves

_log = logging.getLogger(__name__)


class Stages:
    """Writes a stage's files into a folder of its own and logs the folder."""

    def __init__(self, tracked: Run) -> None:
        self._tracked = tracked

    def log(self, stage: str, contents: Mapping[str, str | bytes | Figure | Callable[[Path], object]]) -> None:
        """Log files, by name: a text, bytes, a figure, or a function that writes the file."""
        with files.scratch() as scratch:
            folder = scratch / stage
            folder.mkdir()
            for name, content in contents.items():
                if isinstance(content, str):
                    (folder / name).write_text(content, encoding="utf-8")
                elif isinstance(content, bytes):
                    (folder / name).write_bytes(content)
                elif isinstance(content, Figure):
                    plotting.save(content, folder / name)
                else:
                    content(folder / name)
            self._tracked.log_artifacts(folder)


def track_surroundings(request: Request, stages: Stages) -> None:
    """Log the resolved configuration, the overrides, the versions, the machine, and how the code differs from git's."""
    stages.log(
        "config",
        {
            "config.yaml": request.config.to_yaml(),
            "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(list(request.overrides))),
        },
    )
    stages.log("environment", provenance.describe(paths.checkout()))


def track_data(dataset: Dataset, tracked: Run, stages: Stages) -> None:
    """Log the splits with their digests, the count of each class and the first images of each."""
    source = dataset.attempts[-1].source
    for name, split in dataset.splits.items():
        tracked.log_split(split, name=f"{dataset.name}-{name}", context=name, source=source)
    counts = splits.count_classes(dataset)
    stages.log(
        "data",
        {
            "class_counts.csv": counts.to_csv(index=False),
            "class_counts.png": draw_class_counts(counts, name=dataset.name),
            "samples.png": draw_samples(dataset.train, class_names=dataset.class_names),
            "digests.json": json.dumps(
                {"dataset": dataset.digest, **{name: split.digest for name, split in dataset.splits.items()}}, indent=2
            ),
        },
    )
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    _log.info("data      %s: %s images, from %s", dataset.name, sizes, source)


def track_model(model: keras.Model, dataset: Dataset, stages: Stages) -> None:
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


def track_training(history: History, stages: Stages) -> None:
    """Log the learning curves and the table they are drawn from."""
    table = pd.DataFrame([{"epoch": epoch.number, **epoch.metrics()} for epoch in history])
    stages.log(
        "train",
        {"history.csv": table.to_csv(index=False), "learning_curves.png": draw_learning_curves(history)},
    )


def track_evaluation(evaluation: Evaluation, dataset: Dataset, tracked: Run, stages: Stages) -> None:
    """Log every table and figure of the evaluation; two of the tables so that MLflow compares them between runs."""
    test, class_names = dataset.test, dataset.class_names
    names = np.array(class_names)
    mistakes = pd.DataFrame(
        {
            "image": evaluation.mistakes["index"],
            "label": names[evaluation.mistakes["label"]],
            "predicted": names[evaluation.mistakes["predicted"]],
            "probability": evaluation.mistakes["confidence"].astype(float).round(4),
        }
    )
    stages.log(
        "evaluate",
        {
            "per_class.csv": evaluation.per_class.to_csv(index=False),
            "per_class.json": evaluation.per_class.round(4).to_json(orient="split", index=False),
            "mistakes.json": mistakes.to_json(orient="split", index=False),
            "confusion.csv": evaluation.confusion.to_csv(),
            "calibration.csv": evaluation.calibration.to_csv(index=False),
            "predictions.parquet": lambda path: evaluation.predictions.to_parquet(path, index=False),
            "confusion.png": draw_confusion(evaluation),
            "reliability.png": draw_reliability(evaluation),
            "mistakes.png": draw_mistakes(evaluation, test, class_names=class_names),
            "first_predictions.png": draw_predictions(
                evaluation, test, class_names=class_names, most=NUM_SHOWN_PREDICTIONS
            ),
        },
    )
    tracked.set_tags(describe_tables("evaluate/per_class.json", "evaluate/mistakes.json"))
