"""From a configuration to a model: its function is called, and what that returns is checked before it is trained."""

import re

import keras

from mnist_pipeline.config import functions
from mnist_pipeline.config.sections import Component
from mnist_pipeline.model.checking import check, enough_memory_for_weights, require_loadable
from mnist_pipeline.system.errors import ConfigError


def build(config: Component, *, image_shape: tuple[int, ...], num_classes: int, seed: int) -> keras.Model:
    """Build the model that `config` names.

    Args:
        config: The model's function and its arguments.
        image_shape: Height and width of an image, in pixels; with more than one channel, their number too.
        num_classes: How many logits the model returns for an image.
        seed: Decides the initial weights, and whatever is drawn while it is trained.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to logits `(n, num_classes)`.

    Raises:
        ConfigError: The function refuses its arguments, or returns something that cannot be trained here.
    """
    function = functions.load(config.target, key=f"model.{functions.TARGET}")
    supplied = {"image_shape": image_shape, "num_classes": num_classes, "seed": seed}
    arguments = {**config.arguments, **{name: supplied[name] for name in config.supplied}}
    keras.backend.clear_session()  # a model must not depend on what was built before it in this process
    keras.utils.set_random_seed(seed)  # for initial weights without a seed of their own
    try:
        with enough_memory_for_weights():
            model = check(function(**arguments), image_shape=image_shape, num_classes=num_classes)
        if not functions.is_ours(config.target):
            require_loadable(model)
        return model
    except ValueError as error:
        raise ConfigError(f"model={config.name}: {_on_one_line(str(error))}") from error


def _on_one_line(text: str) -> str:
    """Return the message of an error without what Keras adds: boldface, and a list of arguments."""
    plain = re.sub(r"\x1b\[\d*m", "", text).partition("Arguments received by")[0]
    return " ".join(plain.split())
