"""Inspection of a model before it is trained: its layers, and its loss before the first step."""

import logging
import math
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.model.prediction import predict_logits
from mnist_pipeline.model.score import score

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstLook:
    """The untrained model's predictions.

    Attributes:
        probabilities: float32 (num_classes,), of the first training image.
        loss: Mean cross-entropy of the first training images, in nats.
        expected_loss: ln(num_classes), the loss of a uniform guess.
    """

    probabilities: npt.NDArray[np.float32]
    loss: float
    expected_loss: float


def look_untrained(model: keras.Model, split: Split, *, num_images: int = 1000) -> FirstLook:
    """Return the untrained model's predictions, and warn if its loss is far from that of a uniform guess.

    Well-initialised weights give nearly equal probabilities, and so a loss near ln(num_classes). A loss that is off by
    more than half of that is a sign of unscaled images, wrong labels or a bad initialisation.
    """
    logits = predict_logits(model, split.images[:num_images])
    labels = split.labels[:num_images]
    found = score(logits, labels).loss
    expected = math.log(logits.shape[1])
    if not abs(found - expected) <= expected / 2:
        _log.warning(
            "the untrained model's loss is %.3f, far from ln %d = %.3f: look at the scaling of the images, the labels "
            "and the initial weights",
            found,
            logits.shape[1],
            expected,
        )
    return FirstLook(
        probabilities=np.exp(log_softmax(logits[0])).astype(np.float32), loss=found, expected_loss=expected
    )


def summarise_layers(model: keras.Model) -> pd.DataFrame:
    """Return one row per layer: its name, kind, output shape and number of parameters."""
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "kind": type(layer).__name__,
                "output_shape": str(tuple(layer.output.shape)),
                "num_params": layer.count_params(),
            }
            for layer in model.layers
        ]
    )
