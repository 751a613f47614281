"""The model stage: build the network, look at it before it is trained, make it ready for a caller."""

import logging
import math
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from mnist_pipeline.config.sections import ModelConfig
from mnist_pipeline.data.dataset import Split

PREDICTION_CHUNK = 2_000

_log = logging.getLogger(__name__)


def build(config: ModelConfig, *, image_shape: tuple[int, ...], num_classes: int, seed: int) -> keras.Model:
    """Build the baseline: Flatten, Dense(hidden_width, relu), Dropout(dropout_rate), Dense(num_classes).

    Args:
        config: Width of the hidden layer and rate of dropout.
        image_shape: Height and width of an image, in pixels.
        num_classes: Units of the last layer.
        seed: Decides the initial weights and dropout.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to float32 logits `(n, num_classes)`. Scaling to 0..1 is its
        first layer: a caller cannot forget it, and a batch of bytes moves a quarter of the memory of a batch of floats.
    """
    hidden_seed, dropout_seed, logits_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
    initial = keras.initializers.GlorotUniform
    return keras.Sequential(
        [
            keras.Input(image_shape, dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 255, name="scale"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(
                config.hidden_width, activation="relu", kernel_initializer=initial(seed=hidden_seed), name="hidden"
            ),
            keras.layers.Dropout(config.dropout_rate, seed=dropout_seed, name="dropout"),
            keras.layers.Dense(num_classes, kernel_initializer=initial(seed=logits_seed), name="logits"),
        ],
        name=config.name,
    )


def with_probabilities(model: keras.Model) -> keras.Model:
    """Return the model that is logged: raw uint8 images in, float32 probabilities `(n, num_classes)` out.

    The weights are shared with `model`, not copied.
    """
    return keras.Model(model.inputs[0], keras.layers.Softmax(name="probabilities")(model.outputs[0]), name=model.name)


def predict_logits(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits float32 `(n, num_classes)` of images uint8 `(n, height, width)`, dropout off."""
    chunks = [images[start : start + PREDICTION_CHUNK] for start in range(0, len(images), PREDICTION_CHUNK)]
    return np.concatenate([model(chunk, training=False).numpy() for chunk in chunks])


@dataclass(frozen=True)
class Score:
    """How well logits fit labels.

    Attributes:
        loss: Mean cross-entropy, in nats.
        accuracy: Share of the images whose largest logit is the label's, 0..1.
    """

    loss: float
    accuracy: float


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Score:
    """Return the mean cross-entropy and the accuracy, worked out in float64."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return Score(
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
    )


@dataclass(frozen=True)
class FirstLook:
    """What the untrained model says.

    Attributes:
        probabilities: float32 (num_classes,), of the first training image.
        loss: Mean cross-entropy on the first training images, in nats.
        expected_loss: ln(num_classes), the loss of a model that knows nothing.
    """

    probabilities: npt.NDArray[np.float32]
    loss: float
    expected_loss: float


def look_untrained(model: keras.Model, split: Split, *, num_images: int = 1000) -> FirstLook:
    """Ask the untrained model for its predictions, and warn where its loss is far from that of a uniform guess.

    Weights that are drawn rightly give nearly equal probabilities, hence a loss near ln(num_classes); a loss that is
    off by more than half of that tells of unscaled images, wrong labels or a bad initialisation.
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
    """Return one row a layer: its name, kind, output shape and number of parameters."""
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
