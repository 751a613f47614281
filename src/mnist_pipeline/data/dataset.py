"""The data stage: find a data set, verify it, split it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mnist_pipeline.data import mnist
from mnist_pipeline.system import paths
from mnist_pipeline.config.sections import DataConfig, MnistConfig
from mnist_pipeline.data.mnist import Attempt

NUM_DIGITS_TEST_IMAGES = 360


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 (n, height, width), pixels 0..255.
        labels: int32 (n,), each the index of a class.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes of the images, then of the labels (int32, little-endian)."""
        return _digest(self.images, self.labels.astype("<i4"))


@dataclass(frozen=True)
class Dataset:
    """A data set, split for training, validation and test.

    Attributes:
        name: As in `data=`.
        validation: None where `data.validation_size` is 0.
        digest: SHA-256 of the bytes of the whole data set, before it was split.
        attempts: Every source that was tried, the last of them the one that gave the data.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    class_names: tuple[str, ...]
    digest: str
    attempts: tuple[Attempt, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height and width of an image, in pixels."""
        return self.train.images.shape[1:]

    @property
    def num_classes(self) -> int:
        """How many classes a label may name."""
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that have images, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


@dataclass(frozen=True)
class Found:
    """A data set as it was found, before it is split.

    Attributes:
        arrays: `x_train`, `y_train`, `x_test`, `y_test`, in MNIST's layout.
        digest: SHA-256 of their bytes.
        attempts: Every source that was tried, the last of them the one that gave the data.
    """

    name: str
    arrays: mnist.Arrays
    digest: str
    attempts: tuple[Attempt, ...]

    @cached_property
    def test(self) -> Split:
        """The test split, which no configuration changes."""
        return Split(self.arrays["x_test"], self.arrays["y_test"].astype(np.int32))


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` describes.

    Raises:
        MnistUnavailableError: MNIST is asked for and no source has it.
    """
    return split(find(config), config)


def find(config: DataConfig) -> Found:
    """Return the arrays of the data set that `config` names.

    Raises:
        MnistUnavailableError: MNIST is asked for and no source has it.
    """
    if isinstance(config, MnistConfig):
        arrays, attempts = mnist.find(config, home=paths.home())
    else:
        arrays, attempts = digits_arrays(), [Attempt("scikit-learn", "found")]
    digest = _digest(*(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")))
    return Found(name=config.name, arrays=arrays, digest=digest, attempts=tuple(attempts))


def split(found: Found, config: DataConfig) -> Dataset:
    """Hold the validation images out that `config` asks for."""
    arrays = found.arrays
    learn = Split(arrays["x_train"], arrays["y_train"].astype(np.int32))
    train, validation = _hold_out(learn, size=config.validation_size, seed=config.split_seed)
    return Dataset(
        name=found.name,
        train=train,
        validation=validation,
        test=found.test,
        class_names=tuple(str(digit) for digit in range(10)),
        digest=found.digest,
        attempts=found.attempts,
    )


def count_classes(dataset: Dataset) -> pd.DataFrame:
    """Return one row a class: its name, and its number of images in each split."""
    counts = {name: np.bincount(split.labels, minlength=dataset.num_classes) for name, split in dataset.splits.items()}
    return pd.DataFrame({"class": dataset.class_names, **counts})


def digits_arrays() -> mnist.Arrays:
    """Return scikit-learn's handwritten digits (Alpaydin and Kaynak, 1998) in MNIST's layout.

    Each of the 8x8 pixels (0..16) becomes a block of 3x3 pixels (0..255), with a margin of 2 black pixels around: exact
    in integers, so that the bytes are the same everywhere.

    Returns:
        `x_train` uint8 (1437, 28, 28), `y_train` uint8 (1437,), `x_test` uint8 (360, 28, 28), `y_test` uint8 (360,);
        the test split is stratified and always the same.
    """
    digits = load_digits()
    pixels = (digits.images.astype(np.uint16) * 255 + 8) // 16
    images = np.pad(np.kron(pixels, np.ones((1, 3, 3), np.uint16)), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    train, test = _stratified_indices(labels, size=NUM_DIGITS_TEST_IMAGES, seed=0)
    return {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}


def _hold_out(learn: Split, *, size: int, seed: int) -> tuple[Split, Split | None]:
    if size == 0:
        return learn, None
    kept, held_out = _stratified_indices(learn.labels, size=size, seed=seed)
    return (
        Split(learn.images[kept], learn.labels[kept]),
        Split(learn.images[held_out], learn.labels[held_out]),
    )


def _stratified_indices(
    labels: npt.NDArray[np.integer], *, size: int, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Choose `size` indices in the proportions of the classes; return the others and the chosen, each in order."""
    kept, chosen = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(chosen)


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
