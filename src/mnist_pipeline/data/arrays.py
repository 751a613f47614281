"""`data=arrays`: an NPZ file, in Keras's layout or with all images in one array."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.system import memory, paths

_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_IMAGES = ("x", "X", "images", "data")
_LABELS = ("y", "Y", "labels", "target")


def load(path: str, *, class_names: list[str] | None = None) -> Images:
    """Return the arrays of an NPZ file.

    The names are those of Keras's data sets, `x_train`, `y_train`, `x_test`, `y_test`, perhaps with `x_val`, `y_val`;
    or `x` and `y`, or `images` and `labels`. An array `class_names` of texts names the classes.

    Args:
        path: The file.
        class_names: Names of the classes in the order of the labels, which count from 0.

    Raises:
        ValueError: It is damaged, or has no such arrays.
    """
    file = paths.expand(path)
    if not file.is_file():
        raise ValueError(f"{file} is not a file: give an NPZ file")
    try:
        with zipfile.ZipFile(file) as members:
            num_bytes = sum(info.file_size for info in members.infolist())
        memory.require((num_bytes,), np.uint8, instead="use fewer images")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise ValueError(f"{file.name} has arrays of Python objects, which are never loaded") from error
        raise ValueError(f"{file.name} cannot be read: {error}") from error
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from error
    images, labels = _find_splits(arrays, file)
    names = class_names if class_names is not None else arrays.get("class_names")
    return Images(
        images,
        labels,
        class_names=None if names is None else list(map(str, names)),
        attempts=[Attempt(str(file), "found")],
    )


def _find_splits(
    arrays: dict[str, npt.NDArray[np.generic]], file: Path
) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, npt.NDArray[np.generic]]]:
    images: dict[str, npt.NDArray[np.generic]] = {}
    labels: dict[str, npt.NDArray[np.generic]] = {}
    for split, spellings in _SPLITS.items():
        suffixes = [f"_{spelling}" for spelling in spellings] + ([""] if split == "train" else [])
        for found, begins in ((images, _IMAGES), (labels, _LABELS)):
            names = [f"{begin}{suffix}" for suffix in suffixes for begin in begins if f"{begin}{suffix}" in arrays]
            if len(names) > 1:
                raise ValueError(f"{file.name} has both {names[0]} and {names[1]}: which are the {split} ones?")
            if names:
                found[split] = arrays[names[0]]
        if (split in images) != (split in labels):
            raise ValueError(f"{file.name} has {'no labels' if split in images else 'no images'} of {split}")
    if "train" not in images:
        raise ValueError(
            f"{file.name} has the arrays {', '.join(sorted(arrays)) or 'none'}: expected x_train "
            "and y_train, or x and y"
        )
    return images, labels
