"""`data=idx`: the four files in which MNIST and its kin are published, gzipped or not.

The format is that of Y. LeCun's page of MNIST: two zero bytes, the type, the number of axes, their big-endian sizes,
then the numbers, big-endian.
"""

import contextlib
import gzip
import logging
import os
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.checking import to_pixels
from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.system import memory, paths

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NAME = re.compile(
    r"(?P<subset>.*?)-?(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d-(ubyte|int|short|float|double)(\.gz)?"
)
_GZIP_START = b"\x1f\x8b"
_LOOKS_TRANSPOSED = 1.2
_MAX_DEPTH = 3

_log = logging.getLogger(__name__)


def load(path: str, *, subset: str | None = None, transpose: bool = False) -> Images:
    """Return the images and labels of IDX files.

    Args:
        path: The folder that holds them, or one above it, as torchvision keeps them.
        subset: What the names of the files begin with, where a folder holds several data sets, e.g. `emnist-letters`.
        transpose: Whether to swap the rows and columns of the images, which EMNIST stores that way.

    Raises:
        ValueError: The files are not there, or are damaged.
    """
    folder = paths.expand(path)
    files = find_files(folder, subset)
    images, labels = {}, {}
    for split, names in (("train", ("train",)), ("test", ("t10k", "test"))):
        found = {kind: files[name, kind] for name in names for kind in ("images", "labels") if (name, kind) in files}
        if split == "test" and not found:
            continue
        for kind in ("images", "labels"):
            if kind not in found:
                raise ValueError(f"{folder} has no IDX file of the {kind} of {split}")
        pixels = to_pixels(read_file(found["images"]), where=split)
        images[split] = np.ascontiguousarray(pixels.swapaxes(1, 2)) if transpose else pixels
        numbers = read_file(found["labels"])
        labels[split] = numbers[:, 0] if numbers.ndim == 2 else numbers  # QMNIST's have more columns
    if not transpose and _look_transposed(images["train"]):
        _log.warning("the images of %s look transposed, as EMNIST's are: data.transpose=true turns them", folder)
    return Images(images, labels, attempts=[Attempt(str(folder), "found")])


def find_files(folder: Path, subset: str | None) -> dict[tuple[str, str], Path]:
    """Return the IDX files below a folder, by split and kind.

    Raises:
        ValueError: There are none, or those of several data sets.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give the one that holds the IDX files")
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    for parent, folders, names in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        folders[:] = sorted(folders) if depth < _MAX_DEPTH else []
        for name in sorted(names):
            match = _NAME.fullmatch(name)
            if match:
                found = sets.setdefault(match["subset"] or Path(parent).name, {})
                found.setdefault((match["split"], match["kind"]), Path(parent) / name)
    if not sets:
        raise ValueError(f"{folder} has no IDX files, e.g. train-images-idx3-ubyte.gz")
    if subset is None and len(sets) == 1:
        return next(iter(sets.values()))
    if subset not in sets:
        raise ValueError(f"{folder} holds the data sets {', '.join(sorted(sets))}: name one with data.subset=")
    return sets[subset]


def read_file(path: Path) -> npt.NDArray[Any]:
    """Return the array in an IDX file.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read now.
        MemoryError: It does not fit.
    """
    try:
        with path.open("rb") as raw:
            is_zipped = raw.read(len(_GZIP_START)) == _GZIP_START  # people unpack files, and keep their names
            raw.seek(0)
            with gzip.open(raw) if is_zipped else contextlib.nullcontext(raw) as file:
                array = _read(file)
                if _goes_on(file):
                    _log.warning("%s goes on after its last number: what follows is ignored", path)
                return array
    except (gzip.BadGzipFile, EOFError, struct.error) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def _read(file: BinaryIO | gzip.GzipFile) -> npt.NDArray[Any]:
    zeros, kind, num_axes = struct.unpack(">HBB", file.read(4))
    if zeros or kind not in _TYPES or not 1 <= num_axes <= 4:
        raise ValueError("not an IDX file")
    shape = struct.unpack(f">{num_axes}I", file.read(4 * num_axes))
    memory.require(shape, _TYPES[kind], instead="use fewer images")
    array = np.empty(shape, _TYPES[kind])
    if array.size:
        target = memoryview(array.data).cast("B")
        done = 0
        while done < len(target):
            count = file.readinto(target[done:])  # type: ignore[union-attr]
            if not count:
                raise ValueError(f"it ends after {done:,} of {len(target):,} bytes")
            done += count
    return array


def _goes_on(file: BinaryIO | gzip.GzipFile) -> bool:
    try:
        return bool(file.read(1))
    except gzip.BadGzipFile:  # what follows is not zipped
        return True


def _look_transposed(images: npt.NDArray[np.uint8], num_images: int = 500) -> bool:
    """Return whether what is in grey images on black is wider than high, as no script's signs are on average."""
    if images.ndim != 3:
        return False
    ink = images[:num_images] > 127
    heights, widths = ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1)
    return bool(widths.mean() > _LOOKS_TRANSPOSED * heights.mean())
