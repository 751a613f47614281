"""Predictions of a model: its logits, and the model with probabilities that is logged."""

import keras
import numpy as np
import numpy.typing as npt

PREDICTION_CHUNK = 2_000


def with_probabilities(model: keras.Model) -> keras.Model:
    """Return the model that is logged: raw uint8 images in, float32 probabilities `(n, num_classes)` out.

    The weights are shared with `model`, not copied.
    """
    return keras.Model(model.inputs[0], keras.layers.Softmax(name="probabilities")(model.outputs[0]), name=model.name)


def predict_logits(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits float32 `(n, num_classes)` of images uint8 `(n, height, width)`, dropout off."""
    chunks = [images[start : start + PREDICTION_CHUNK] for start in range(0, len(images), PREDICTION_CHUNK)]
    return np.concatenate([model(chunk, training=False).numpy() for chunk in chunks])
