"""What a function of a model returned is checked before it is trained, so that no training ends in a useless model."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from mnist_pipeline.model.layers import list_layers
from mnist_pipeline.system import memory

_BYTES_PER_PARAMETER = 16
"""A float32 for the weight, its gradient, and two moments of the optimiser."""


@contextlib.contextmanager
def enough_memory_for_weights() -> Iterator[None]:
    """Refuse weights whose training will not fit into memory, before they are made.

    Raises:
        ValueError: There is too little memory.
    """
    available = memory.available_bytes()
    make_weights = keras.Layer.add_weight
    num_parameters = 0

    def make(layer: keras.Layer, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal num_parameters
        num_parameters += math.prod(shape or ())
        needed = num_parameters * _BYTES_PER_PARAMETER
        if available is not None and needed > available:
            raise ValueError(
                f"its layers up to {layer.name} have {num_parameters:,} parameters: training them needs "
                f"{needed / 1e9:,.1f} GB of memory, and {available / 1e9:,.1f} GB are left; make it smaller"
            )
        return make_weights(layer, shape, *args, **kwargs)

    keras.Layer.add_weight = make
    try:
        yield
    finally:
        keras.Layer.add_weight = make_weights


def check(model: Any, *, image_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a model whose input and output are known, from images `(n, *image_shape)` to logits `(n, num_classes)`.

    Args:
        model: What the function returned.
        image_shape: Of the images that it must take.
        num_classes: Length of the logits that it must return.

    Raises:
        ValueError: It is not such a model.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"its function returned {type(model).__name__}: expected a Keras model")
    if not getattr(model, "inputs", None):  # a subclass of keras.Model, or a Sequential without an Input
        image = keras.Input(image_shape, dtype="uint8", name="image")
        model = keras.Model(image, model(image), name=model.name)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs: expected one of each, images and "
            "logits"
        )
    (given,), (found,) = model.inputs, model.outputs
    if tuple(given.shape[1:]) != image_shape:
        raise ValueError(f"its input has the shape {given.shape[1:]}: expected that of an image, {image_shape}")
    if tuple(found.shape[1:]) != (num_classes,):
        raise ValueError(
            f"its output has the shape {found.shape[1:]}: expected ({num_classes},), a logit for each of the classes"
        )
    if not found.dtype.startswith("float"):
        raise ValueError(f"its output has the type {found.dtype}: expected float32 logits")
    _require_logits(model)
    if not model.trainable_variables:
        raise ValueError("it has no weights to train")
    return model


def _require_logits(model: keras.Model) -> None:
    last = model.outputs[0]._keras_history.operation
    while isinstance(last, keras.Model):
        last = last.outputs[0]._keras_history.operation if getattr(last, "outputs", None) else last.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if isinstance(last, keras.layers.Softmax) or activation in ("softmax", "sigmoid", "log_softmax"):
        raise ValueError(
            f"its last layer, {last.name}, is a {activation or 'softmax'}: leave that out, since the loss takes "
            "logits and the logged model adds the softmax"
        )


def require_loadable(model: keras.Model) -> None:
    """Refuse what Keras cannot read back from a file in safe mode.

    Raises:
        ValueError: It cannot.
    """
    for layer in list_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            raise ValueError(
                f"its layer {layer.name} is a Lambda, which cannot be loaded safely: make it a layer class"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about lambdas, which are refused below
            config = keras.saving.serialize_keras_object(model)
        for name in _list_unregistered(config):
            raise ValueError(
                f"{name} is not registered, so the saved model could not be loaded: add the line "
                '@keras.saving.register_keras_serializable(package="my_package") above its definition'
            )
        keras.saving.deserialize_keras_object(config, safe_mode=True)
    except (NotImplementedError, TypeError) as error:  # how Keras says that a class cannot be saved or made again
        raise ValueError(f"it cannot be saved and loaded ({' '.join(str(error).split())[:300]})") from error


def _list_unregistered(config: Any) -> Iterator[str]:
    """Yield the name of every class and function in a serialised object that Keras would not find."""
    if isinstance(config, list | tuple):
        for one in config:
            yield from _list_unregistered(one)
    if not isinstance(config, dict):
        return
    registered = config.get("registered_name")
    is_of_keras = str(config.get("module")).partition(".")[0] == "keras"  # found by its module, such as Functional
    if (
        registered
        and not is_of_keras
        and "class_name" in config
        and keras.saving.get_registered_object(registered) is None
    ):
        yield str(config["config"] if config["class_name"] == "function" else config["class_name"])
    for one in config.values():
        yield from _list_unregistered(one)
