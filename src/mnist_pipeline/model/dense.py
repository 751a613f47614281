"""`model=dense`: the baseline dense network."""

import keras
import numpy as np

from mnist_pipeline.config.sections import ModelConfig


def build(config: ModelConfig, *, image_shape: tuple[int, ...], num_classes: int, seed: int) -> keras.Model:
    """Build the baseline: Flatten, Dense(hidden_width, relu), Dropout(dropout_rate), Dense(num_classes).

    Args:
        config: Width of the hidden layer and rate of dropout.
        image_shape: Height and width of an image, in pixels.
        num_classes: Units of the last layer.
        seed: Decides the initial weights and dropout.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to float32 logits `(n, num_classes)`. Its first layer scales
        to 0..1, so that a caller cannot forget it, and a batch of bytes takes a quarter of the memory of a batch of
        floats.
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
