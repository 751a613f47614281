"""`model=conv`: a small convolutional network."""

from typing import Annotated

import keras
from annotated_types import Ge, Le, Lt

from mnist_pipeline.model.seeds import draw_seeds


def build(
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    seed: int,
    filters: tuple[Annotated[int, Ge(1), Le(4096)], ...] = (32, 64),
    kernel_size: Annotated[int, Ge(1), Le(31)] = 3,
    dropout_rate: Annotated[float, Ge(0), Lt(1)] = 0.5,
) -> keras.Model:
    """Build for each number of filters Conv2D(relu) and MaxPooling2D(2); then Flatten, Dropout and Dense(num_classes).

    Args:
        image_shape: Height and width of an image, in pixels, and with more than one channel their number.
        num_classes: Units of the last layer.
        seed: Decides the initial weights and dropout.
        filters: Of each convolution.
        kernel_size: Height and width of a filter, in pixels; the images keep their size around it.
        dropout_rate: Share of the last layer's inputs that is dropped in each training step.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to float32 logits `(n, num_classes)`.

    Raises:
        ValueError: The images are too small to be halved so often.
    """
    if min(image_shape[:2]) < 2 ** len(filters):
        raise ValueError(
            f"model.filters={list(filters)}: images of {image_shape[0]}x{image_shape[1]} pixels cannot be halved "
            f"{len(filters)} times; give fewer"
        )
    *conv_seeds, dropout_seed, logits_seed = draw_seeds(seed, len(filters) + 2)
    channels = image_shape[2] if len(image_shape) == 3 else 1
    layers = [
        keras.Input(image_shape, dtype="uint8", name="image"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Reshape((*image_shape[:2], channels)),
    ]
    for number, conv_seed in zip(filters, conv_seeds, strict=True):
        initial = keras.initializers.GlorotUniform(seed=conv_seed)
        layers += [
            keras.layers.Conv2D(number, kernel_size, padding="same", activation="relu", kernel_initializer=initial),
            keras.layers.MaxPooling2D(2),
        ]
    last = keras.initializers.GlorotUniform(seed=logits_seed)
    return keras.Sequential(
        [
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout_rate, seed=dropout_seed),
            keras.layers.Dense(num_classes, kernel_initializer=last, name="logits"),
        ],
        name="conv",
    )
