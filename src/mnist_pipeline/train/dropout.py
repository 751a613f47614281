"""Dropout with random bits that XLA draws cheaply: Keras's own draw takes most of an epoch under XLA."""

import contextlib
from collections.abc import Iterator
from functools import partial

import keras
import tensorflow as tf

from mnist_pipeline.model.layers import list_layers

_NUM_VALUES = 2**32


def can_be_cheap(model: keras.Model) -> bool:
    """Return whether every dropout of the model drops each unit for itself."""
    return all(layer.noise_shape is None for layer in list_layers(model) if isinstance(layer, keras.layers.Dropout))


@contextlib.contextmanager
def cheap_dropout(model: keras.Model) -> Iterator[None]:
    """Let functions that are traced in a `with` block draw the bits of dropout by ThreeFry, which only XLA can.

    The draws are a pure function of the layers' own states, which each call moves on, as Keras's are.
    """
    layers = [layer for layer in list_layers(model) if isinstance(layer, keras.layers.Dropout)]
    for layer in layers:
        layer.call = partial(_drop, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _drop(layer: keras.layers.Dropout, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
    if not training or layer.rate == 0:
        return inputs
    seed = tf.cast(tf.convert_to_tensor(layer.seed_generator.next()), tf.int64)
    bits = tf.random.stateless_uniform(
        tf.shape(inputs), seed=seed, minval=None, maxval=None, dtype=tf.uint32, alg="threefry"
    )
    is_kept = bits >= tf.constant(round(layer.rate * _NUM_VALUES), tf.uint32)
    return tf.where(is_kept, inputs / (1 - layer.rate), tf.zeros_like(inputs))
