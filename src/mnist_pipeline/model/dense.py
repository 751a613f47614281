"""`model=dense`: the baseline dense network."""

from typing import Annotated

import keras
from annotated_types import Ge, Le, Lt

from mnist_pipeline.model.seeds import draw_seeds


def build(
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    seed: int,
    hidden_width: Annotated[int, Ge(1), Le(100_000)] = 128,
    dropout_rate: Annotated[float, Ge(0), Lt(1)] = 0.2,
) -> keras.Model:
    """Build the baseline: Flatten, Dense(hidden_width, relu), Dropout(dropout_rate), Dense(num_classes).

    Args:
        image_shape: Height and width of an image, in pixels, and with more than one channel their number.
        num_classes: Units of the last layer.
        seed: Decides the initial weights and dropout.
        hidden_width: Units of the hidden layer.
        dropout_rate: Share of the hidden units that is dropped in each training step.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to float32 logits `(n, num_classes)`. Its first layer scales
        to 0..1, so that a caller cannot forget it, and a batch of bytes takes a quarter of the memory of a batch of
        floats.
    """
    hidden_seed, dropout_seed, logits_seed = draw_seeds(seed, 3)
    initial = keras.initializers.GlorotUniform
    return keras.Sequential(
        [
            keras.Input(image_shape, dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 255, name="scale"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(
                hidden_width, activation="relu", kernel_initializer=initial(seed=hidden_seed), name="hidden"
            ),
            keras.layers.Dropout(dropout_rate, seed=dropout_seed, name="dropout"),
            keras.layers.Dense(num_classes, kernel_initializer=initial(seed=logits_seed), name="logits"),
        ],
        name="dense",
    )
