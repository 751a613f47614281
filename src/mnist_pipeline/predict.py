"""Predictions for files: any number of images in bounded memory, and a bad file stops no other."""

import contextlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.champion import Champion
from mnist_pipeline.images import ARRAYS, PICTURES, BadImageError, Invert, fit, is_bright, read_arrays, read_picture
from mnist_pipeline.tables import TableFile

NUM_SHOWN = 20

_CHUNK = 256


@dataclass
class Predictions:
    """What came of the files.

    Attributes:
        num_images: That were predicted.
        first: Rows of the first few of them.
        bad: Each file or image that could not be used, with the reason.
    """

    num_images: int = 0
    first: list[dict[Hashable, Any]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


def predict(
    paths: Sequence[Path],
    champion: Champion,
    *,
    invert: Invert,
    output: Path | None,
    on_bad: Callable[[str, str], None],
) -> Predictions:
    """Predict every image of files and folders.

    Args:
        paths: PNG, JPEG and NPZ files, and folders of them.
        champion: Predicts.
        invert: As for `images.fit`.
        output: A file for all rows, by its ending CSV, Parquet or JSON; it is there whole, or not at all.
        on_bad: Is told of each file that cannot be used, at once, and the reason.

    Returns:
        What there is to show of it.
    """
    result = Predictions()

    def skip(name: str, reason: str) -> None:
        result.bad.append((name, reason))
        on_bad(name, reason)

    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(TableFile(output)) if output else None
        for names, images in _chunks(_images(paths, champion.image_shape, invert, skip)):
            table = _tabulate(names, champion.predict(images), champion)
            if writer:
                writer.write(table)
            if len(result.first) < NUM_SHOWN:
                result.first += table.head(NUM_SHOWN - len(result.first)).to_dict("records")
            result.num_images += len(names)
    return result


Batch = tuple[list[str], npt.NDArray[np.uint8]]


def _images(
    paths: Iterable[Path], image_shape: tuple[int, int], invert: Invert, skip: Callable[[str, str], None]
) -> Iterator[Batch]:
    """Yield images as the model takes them, one or many at a time."""
    for path in _files(paths, skip):
        try:
            if path.suffix.lower() in ARRAYS:
                yield from _array_images(path, image_shape, invert, skip)
            else:
                yield [_name(path)], fit(read_picture(path), image_shape=image_shape, invert=invert)[None]
        except BadImageError as error:
            skip(_name(path), str(error))


def _name(path: Path) -> str:
    """Return the path as text that can be printed and written, whatever bytes the name is of."""
    return os.fsencode(path).decode(errors="replace")


def _files(paths: Iterable[Path], skip: Callable[[str, str], None]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = _walk(path)
            first = next(found, None)
            if first is None:
                skip(_name(path), "a folder without PNG, JPEG or NPZ files")
            else:
                yield first
                yield from found
        elif not path.is_file():
            skip(_name(path), "no such file")
        elif path.suffix.lower() not in (*PICTURES, *ARRAYS):
            skip(_name(path), "neither PNG nor JPEG nor NPZ, by its name")
        else:
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        paths = (Path(parent) / name for name in sorted(names))
        # Regular files alone: to open a pipe would wait for ever.
        yield from (path for path in paths if path.suffix.lower() in (*PICTURES, *ARRAYS) and path.is_file())


def _array_images(
    path: Path, image_shape: tuple[int, int], invert: Invert, skip: Callable[[str, str], None]
) -> Iterator[Batch]:
    """Yield an NPZ file's images. Those of the model's own shape are taken as they are, but for the inversion."""
    counts: dict[str, int] = {}
    for array, grey in read_arrays(path):
        start = counts.get(array, 0)
        counts[array] = start + len(grey)
        names = [f"{_name(path)}:{array}[{start + number}]" for number in range(len(grey))]
        if grey.shape[1:] == image_shape:
            inverted = is_bright(grey) if invert is Invert.auto else np.full(len(grey), invert is Invert.yes)
            yield names, np.where(inverted[:, None, None], 255 - grey, grey)
            continue
        for name, image in zip(names, grey, strict=True):
            try:
                yield [name], fit(image, image_shape=image_shape, invert=invert)[None]
            except BadImageError as error:
                skip(name, str(error))


def _chunks(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join small batches, since a call of the model costs more than an image."""
    names: list[str] = []
    images: list[npt.NDArray[np.uint8]] = []
    for more_names, more_images in batches:
        names += more_names
        images.append(more_images)
        if len(names) >= _CHUNK:
            yield names, np.concatenate(images)
            names, images = [], []
    if names:
        yield names, np.concatenate(images)


def _tabulate(names: list[str], probabilities: npt.NDArray[np.float32], champion: Champion) -> pd.DataFrame:
    best = probabilities.argmax(axis=1)
    columns = [f"probability_{name}" for name in champion.class_names]
    table = pd.DataFrame(
        {
            "image": names,
            "predicted": np.array(champion.class_names)[best],
            "probability": probabilities[np.arange(len(best)), best],
            "model": champion.name,
            "version": champion.version,
        }
    )
    return pd.concat([table, pd.DataFrame(probabilities, columns=columns)], axis=1)
