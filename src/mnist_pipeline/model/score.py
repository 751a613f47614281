"""How well logits fit labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax


@dataclass(frozen=True)
class Score:
    """How well logits fit labels.

    Attributes:
        loss: Mean cross-entropy, in nats.
        accuracy: Share of the images whose largest logit is that of the label, 0..1.
    """

    loss: float
    accuracy: float


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Score:
    """Return the mean cross-entropy and the accuracy, computed in float64."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return Score(
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
    )
