"""A data set: the arrays as they were found, and the splits made from them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Attempt:
    """A source that was tried, and the outcome."""

    source: str
    outcome: str


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
        return digest_arrays(self.images, self.labels.astype("<i4"))


@dataclass(frozen=True)
class Dataset:
    """A data set, split for training, validation and test.

    Attributes:
        name: As in `data=`.
        validation: None where `data.validation_size` is 0.
        digest: SHA-256 of the bytes of the whole data set, before it was split.
        attempts: Every source that was tried; the last one provided the data.
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
        attempts: Every source that was tried; the last one provided the data.
    """

    name: str
    arrays: Arrays
    digest: str
    attempts: tuple[Attempt, ...]

    @cached_property
    def test(self) -> Split:
        """The test split, which does not depend on the configuration."""
        return Split(self.arrays["x_test"], self.arrays["y_test"].astype(np.int32))


def digest_arrays(*arrays: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of the bytes of arrays, one after the other, in C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
