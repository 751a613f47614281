"""How a data set is split."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data.dataset import Dataset, Found, Split


def split(found: Found, config: DataConfig) -> Dataset:
    """Split the data set, with as many validation images as `config` says."""
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
    """Return one row per class: its name, and the number of its images in each split."""
    counts = {name: np.bincount(split.labels, minlength=dataset.num_classes) for name, split in dataset.splits.items()}
    return pd.DataFrame({"class": dataset.class_names, **counts})


def _hold_out(learn: Split, *, size: int, seed: int) -> tuple[Split, Split | None]:
    if size == 0:
        return learn, None
    kept, held_out = draw_stratified(learn.labels, size=size, seed=seed)
    return (
        Split(learn.images[kept], learn.labels[kept]),
        Split(learn.images[held_out], learn.labels[held_out]),
    )


def draw_stratified(
    labels: npt.NDArray[np.integer], *, size: int, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Draw `size` indices, stratified by class; return the others and the drawn ones, each in order."""
    kept, chosen = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(chosen)
