"""The loss that training minimises."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_pipeline.config.sections import TrainConfig


@dataclass(frozen=True)
class Objective:
    """Cross-entropy with smoothed labels and weighted classes.

    Attributes:
        label_smoothing: Share of a label's probability that is spread evenly over all classes (Szegedy et al., 2016,
            arXiv:1512.00567).
        weights: float32 (num_classes,), of the classes; None: all the same.
    """

    label_smoothing: float
    weights: npt.NDArray[np.float32] | None

    def is_plain(self) -> bool:
        """Return whether it is the cross-entropy itself."""
        return not self.label_smoothing and self.weights is None

    def sum_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the sum of the losses of labels int32 (n,) and logits float32 (n, num_classes)."""
        if self.label_smoothing:
            num_classes = logits.shape[1]
            targets = tf.one_hot(labels, num_classes) * (1 - self.label_smoothing) + self.label_smoothing / num_classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.weights is not None:
            losses *= tf.gather(self.weights, labels)
        return tf.reduce_sum(losses)


def make_objective(config: TrainConfig, labels: npt.NDArray[np.int32], *, num_classes: int) -> Objective:
    """Return the objective of a training on images with `labels` int32 (n,)."""
    weights = None
    if config.class_weight is not None:
        counts = np.bincount(labels, minlength=num_classes)
        present = counts > 0
        weights = np.zeros(num_classes, np.float32)
        weights[present] = len(labels) / (present.sum() * counts[present])
    return Objective(config.label_smoothing, weights)
