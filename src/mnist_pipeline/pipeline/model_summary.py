"""The summary of a model before it is trained: its layers, its loss, and its first prediction."""

import json
import logging

import keras

from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.model.inspection import look_untrained, summarise_layers
from mnist_pipeline.tracking.record import Artifact
from mnist_pipeline.tracking.tracker import Content

_log = logging.getLogger(__name__)


def summarise(model: keras.Model, dataset: Dataset, *, name: str) -> dict[str, Content]:
    """Return the artifacts that describe an untrained model, by their paths, and report its size and loss."""
    layers = summarise_layers(model)
    look = look_untrained(model, dataset.train)
    untrained = {
        "first_image_probabilities": look.probabilities.tolist(),
        "loss": look.loss,
        "expected_loss": look.expected_loss,
    }
    _log.info(
        "model     %s: %s parameters; untrained loss %.3f, ln %d = %.3f",
        name,
        f"{model.count_params():,}",
        look.loss,
        dataset.num_classes,
        look.expected_loss,
    )
    return {
        Artifact.LAYERS: layers.to_csv(index=False),
        Artifact.MODEL_SUMMARY: layers.to_string(index=False) + f"\n\nparameters: {model.count_params():,}\n",
        Artifact.UNTRAINED: json.dumps(untrained, indent=2),
    }
