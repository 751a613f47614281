"""`model=mlp`: a dense network with several hidden layers."""

from typing import Annotated, Literal

import keras
from annotated_types import Ge, Le, Lt

from mnist_pipeline.model.seeds import draw_seeds


def build(
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    seed: int,
    hidden_widths: tuple[Annotated[int, Ge(1), Le(100_000)], ...] = (256, 128),
    dropout_rate: Annotated[float, Ge(0), Lt(1)] = 0.2,
    activation: Literal["relu", "gelu", "silu", "tanh", "elu"] = "relu",
) -> keras.Model:
    """Build Flatten, for each hidden layer Dense and Dropout, and Dense(num_classes).

    Args:
        image_shape: Height and width of an image, in pixels, and with more than one channel their number.
        num_classes: Units of the last layer.
        seed: Decides the initial weights and dropout.
        hidden_widths: Units of each hidden layer.
        dropout_rate: Share of the units of each hidden layer that is dropped in each training step.
        activation: Of the hidden layers.

    Returns:
        A model from raw uint8 images `(n, *image_shape)` to float32 logits `(n, num_classes)`.
    """
    seeds = iter(draw_seeds(seed, 2 * len(hidden_widths) + 1))
    initial = keras.initializers.HeNormal if activation == "relu" else keras.initializers.GlorotUniform
    layers = [
        keras.Input(image_shape, dtype="uint8", name="image"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    for width in hidden_widths:
        layers += [
            keras.layers.Dense(width, activation=activation, kernel_initializer=initial(seed=next(seeds))),
            keras.layers.Dropout(dropout_rate, seed=next(seeds)),
        ]
    last = keras.initializers.GlorotUniform(seed=next(seeds))
    return keras.Sequential(
        [*layers, keras.layers.Dense(num_classes, kernel_initializer=last, name="logits")], name="mlp"
    )
