"""How a data set is split."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data.dataset import Dataset, Found, Split
from mnist_pipeline.system.errors import ConfigError

DEFAULT_TEST_SHARE = 0.2
_CHUNK = 1024
_KEY = "data.validation_size"


def split(found: Found, config: DataConfig) -> Dataset:
    """Hold out as many validation images as `config` says, unless the data brings its own.

    Raises:
        ConfigError: There are too few images for that.
    """
    train, validation = found.learn, found.validation
    if is_held_out(found, config):
        train, validation = hold_out(
            train, size=config.validation_size, seed=config.split_seed, key=_KEY, class_names=found.class_names
        )
    return Dataset(
        name=found.name,
        train=train,
        validation=validation,
        test=found.test,
        class_names=found.class_names,
        digest=found.digest,
        attempts=found.attempts,
    )


def require_enough(found: Found, config: DataConfig) -> None:
    """Require that `split` can be called, which takes longer.

    Raises:
        ConfigError: There are too few images.
    """
    if is_held_out(found, config):
        _count_held_out(found.learn, size=config.validation_size, key=_KEY, class_names=found.class_names)


def is_held_out(found: Found, config: DataConfig) -> bool:
    """Return whether the validation images are held out of those to learn from."""
    return found.validation is None and bool(config.validation_size)


def count_classes(dataset: Dataset) -> pd.DataFrame:
    """Return one row per class: its name, and the number of its images in each split."""
    counts = {name: np.bincount(split.labels, minlength=dataset.num_classes) for name, split in dataset.splits.items()}
    return pd.DataFrame({"class": dataset.class_names, **counts})


def hold_out(
    whole: Split, *, size: float, seed: int, key: str, class_names: tuple[str, ...], in_place: bool = False
) -> tuple[Split, Split]:
    """Return the images that are left, and those that are held out, stratified by class.

    Args:
        whole: All of them.
        size: Their number, or their share in (0, 1).
        seed: Of the choice.
        key: The key that gives `size`, for messages.
        class_names: Names of the classes.
        in_place: Whether the array of images may be changed, which saves a copy of most of it.

    Raises:
        ConfigError: There are too few images, of a class or in all.
    """
    count = _count_held_out(whole, size=size, key=key, class_names=class_names)
    kept, drawn = draw_stratified(whole.labels, size=count, seed=seed)
    held_out = Split(whole.images[drawn], whole.labels[drawn])
    images = _move_to_front(whole.images, kept) if in_place else whole.images[kept]
    return Split(images, whole.labels[kept]), held_out


def _count_held_out(whole: Split, *, size: float, key: str, class_names: tuple[str, ...]) -> int:
    """Return how many images are held out.

    Raises:
        ConfigError: There are too few images, of a class or in all.
    """
    num_classes = len(class_names)
    count = max(num_classes, round(size * len(whole))) if isinstance(size, float) else size
    largest = len(whole) - num_classes
    if not num_classes <= count <= largest:
        raise ConfigError(f"{key}={size}: expected {num_classes} to {largest:,} of the {len(whole):,} images")
    counts = np.bincount(whole.labels, minlength=num_classes)
    if counts.min() < 2:
        name = class_names[int(counts.argmin())]
        raise ConfigError(
            f"{key}={size}: the class {name!r} has {counts.min()} image left, too few to hold one out: add images of "
            "it, or remove it"
        )
    return int(count)


def _move_to_front(images: npt.NDArray[np.uint8], kept: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
    """Move the images of rising numbers to the front of their array, a chunk at a time, and return that part of it."""
    for start in range(0, len(kept), _CHUNK):
        numbers = kept[start : start + _CHUNK]
        images[start : start + len(numbers)] = images[numbers]  # no image that is still needed: numbers only rise
    return images[: len(kept)]


def draw_stratified(
    labels: npt.NDArray[np.integer], *, size: int, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Draw `size` indices, stratified by class; return the others and the drawn ones, each in order."""
    from sklearn.model_selection import train_test_split  # imported here: it takes half a second, and not all need it

    kept, chosen = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(chosen)
