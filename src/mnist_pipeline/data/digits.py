"""`data=digits`: scikit-learn's handwritten digits, in MNIST's layout."""

import numpy as np
from sklearn.datasets import load_digits

from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.data.splits import draw_stratified

NUM_DIGITS_TEST_IMAGES = 360


def load() -> Images:
    """Return scikit-learn's handwritten digits (Alpaydin and Kaynak, 1998) in MNIST's layout.

    Each of the 8x8 pixels (0..16) becomes a block of 3x3 pixels (0..255), with a margin of 2 black pixels around: exact
    in integers, so that the bytes are the same everywhere.

    Returns:
        1,437 images for training and 360 for the test, uint8 (n, 28, 28); the test split is stratified and always the
        same.
    """
    digits = load_digits()
    pixels = (digits.images.astype(np.uint16) * 255 + 8) // 16
    images = np.pad(np.kron(pixels, np.ones((1, 3, 3), np.uint16)), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    train, test = draw_stratified(labels, size=NUM_DIGITS_TEST_IMAGES, seed=0)
    return Images(
        images={"train": images[train], "test": images[test]},
        labels={"train": labels[train], "test": labels[test]},
        attempts=[Attempt("scikit-learn", "found")],
    )
