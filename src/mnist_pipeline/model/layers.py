"""The layers of a model: what kinds there are, and how much memory their outputs take."""

import math

import keras

_FLOAT_BYTES = 4
_SMALL_LAYERS = (
    *(keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Flatten),
    *(keras.layers.Reshape, keras.layers.Dense, keras.layers.Dropout, keras.layers.Activation, keras.layers.ReLU),
    *(keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.Add, keras.layers.Concatenate),
)


def list_layers(model: keras.Model) -> list[keras.Layer]:
    """Return the layers of a model, with those inside its layers in their places."""
    layers: list[keras.Layer] = []
    for layer in model.layers:
        layers += list_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return layers


def has_only_small_layers(model: keras.Model) -> bool:
    """Return whether no layer is known to be worth the distribution of its work to several threads."""
    return all(type(layer) in _SMALL_LAYERS for layer in list_layers(model))


def output_bytes(model: keras.Model) -> int:
    """Return the bytes that the outputs of all layers take for one image."""
    tensors = keras.tree.flatten([layer.output for layer in list_layers(model)])
    return sum(_FLOAT_BYTES * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
