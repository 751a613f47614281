"""The seeds of a model's layers."""

import numpy as np


def draw_seeds(seed: int, number: int) -> list[int]:
    """Return independent seeds for the layers of a model, a pure function of `seed`."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(number)]
