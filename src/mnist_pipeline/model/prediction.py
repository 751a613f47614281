"""Predictions of a model: its logits, and the model with probabilities that is logged."""

import keras
import numpy as np
import numpy.typing as npt

from mnist_pipeline.model.layers import output_bytes

_MOST_IMAGES = 2_000
_MOST_BYTES = 128_000_000
"""Of the outputs of all layers: larger chunks are not faster, and their memory would be the peak of a run."""


def with_probabilities(model: keras.Model) -> keras.Model:
    """Return the model that is logged: raw uint8 images in, float32 probabilities `(n, num_classes)` out.

    The weights are shared with `model`, not copied.
    """
    return keras.Model(model.inputs[0], keras.layers.Softmax(name="probabilities")(model.outputs[0]), name=model.name)


def predict_logits(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits float32 `(n, num_classes)` of images uint8 `(n, height, width)`, dropout off."""
    length = min(max(_MOST_BYTES // output_bytes(model), 1), _MOST_IMAGES)
    chunks = [images[start : start + length] for start in range(0, len(images), length)]
    return np.concatenate([model(chunk, training=False).numpy() for chunk in chunks])
