"""A data set: what a function returns, the splits that were found in it, and the splits made from those."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mnist_pipeline.system.errors import UserError


@dataclass(frozen=True)
class Attempt:
    """A source that was tried, and the outcome."""

    source: str
    outcome: str


class DataUnavailableError(UserError):
    """The data is not here, and cannot be downloaded. `data.fallback` may name other data to use instead."""

    def __init__(self, message: str, attempts: Sequence[Attempt]) -> None:
        self.attempts = tuple(attempts)
        super().__init__(message)


@dataclass(frozen=True)
class Images:
    """What a function that loads data returns: images and labels in any usual form, `checking.py` checks them.

    Attributes:
        images: (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels: whole numbers 0..255, or
            multiples of 1/255 in 0..1. By the names of the splits, "train", "validation" and "test", where the data
            brings them.
        labels: (n,) whole numbers or texts, or (n, num_classes) one-hot; by split like the images.
        class_names: Names of the classes in the order of the labels, which then count from 0; None: the labels' own.
        attempts: Every source that was tried; the last one provided the data. Empty: the function's name is shown.
        skipped: What was left out, and why, one line each.
    """

    images: npt.ArrayLike | Mapping[str, npt.ArrayLike]
    labels: npt.ArrayLike | Mapping[str, npt.ArrayLike]
    class_names: Sequence[str] | None = None
    attempts: Sequence[Attempt] = ()
    skipped: Sequence[str] = ()


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 (n, height, width[, channels]), pixels 0..255.
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
        name: As in `data.name`.
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
        """Height and width of an image, in pixels; with more than one channel, their number too."""
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
    """A data set as it was found, before validation images are held out.

    Attributes:
        learn: The images that are not for the test.
        validation: None where the data brings no validation split.
        attempts: Every source that was tried; the last one provided the data.
        skipped: What was left out, and why, one line each.
    """

    name: str
    learn: Split
    validation: Split | None
    test: Split
    class_names: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    skipped: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes of the images and labels of each split, in the order of the attributes."""
        splits = (self.learn, self.validation, self.test)
        label = np.uint8 if len(self.class_names) <= 256 else np.dtype("<u4")
        return digest_arrays(*(array for one in splits if one for array in (one.images, one.labels.astype(label))))

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything about the data that decides a result: bytes, form and names of the classes."""
        described = [self.digest, self.learn.images.shape[1:], self.class_names]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def count_leaked(self) -> int:
        """Return how many test images have the bytes of an image that is not for the test."""
        known = {hash(image.tobytes()) for one in (self.learn, self.validation) if one for image in one.images}
        return sum(hash(image.tobytes()) in known for image in self.test.images)


def digest_arrays(*arrays: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of the bytes of arrays, one after the other, in C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
