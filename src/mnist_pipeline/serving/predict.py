"""Predictions for any number of files in bounded memory. A bad file is reported and skipped."""

import mimetypes
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.data.pictures import SUFFIXES as PICTURES
from mnist_pipeline.data.pictures import BadImageError, Invert, fit_digit, is_bright, is_ignored, make_image, read_grey
from mnist_pipeline.serving.arrays import SUFFIXES, read_arrays
from mnist_pipeline.serving.champion import Champion
from mnist_pipeline.serving.tables import TableFile
from mnist_pipeline.system.text import printable

NUM_SHOWN = 20

_CHUNK = 256
_NO_IMAGES = "its name is that of neither a picture nor an NPZ file"


@dataclass
class Predictions:
    """The predictions for some files.

    Attributes:
        num_images: Images that were classified.
        num_bad: Files, arrays and images that could not be used.
        first: Rows of the first few images.
    """

    num_images: int = 0
    num_bad: int = 0
    first: list[dict[Hashable, Any]] = field(default_factory=list)


def predict(
    paths: Sequence[Path],
    champion: Champion,
    *,
    invert: Invert,
    output: TableFile | None,
    on_bad: Callable[[str, str], None],
) -> Predictions:
    """Classify every image in files and folders.

    Args:
        paths: Pictures and NPZ files, and folders of them.
        champion: The model.
        invert: As for `images.fit`.
        output: Receives all rows.
        on_bad: Called with the name of each file, array or image that cannot be used, and the reason.

    Returns:
        The counts, and the first rows.
    """
    result = Predictions()

    def skip(name: str, reason: str) -> None:
        result.num_bad += 1
        on_bad(name, reason)

    for names, images in _chunks(_images(paths, champion, invert, skip, leave_out=on_bad)):
        table = _tabulate(names, champion.predict(images), champion)
        if output:
            output.write(table)
        if len(result.first) < NUM_SHOWN:
            result.first += table.head(NUM_SHOWN - len(result.first)).to_dict("records")
        result.num_images += len(names)
    return result


Batch = tuple[list[str], npt.NDArray[np.uint8]]


def _images(
    paths: Iterable[Path],
    champion: Champion,
    invert: Invert,
    skip: Callable[[str, str], None],
    *,
    leave_out: Callable[[str, str], None],
) -> Iterator[Batch]:
    """Yield images in the model's shape, one or many at a time.

    `leave_out` is told what is not read by intention, `skip` what cannot be used.
    """
    for path in _files(paths, skip, leave_out):
        try:
            if path.suffix.lower() in SUFFIXES:
                yield from _array_images(path, champion, invert, skip)
            else:
                yield [_name(path)], read_image(path, champion, invert=invert)[None]
        except BadImageError as error:
            skip(_name(path), str(error))


def read_image(picture: Path | bytes, champion: Champion, *, invert: Invert = Invert.auto) -> npt.NDArray[np.uint8]:
    """Return a picture as an image for the champion.

    Args:
        picture: A file, or its bytes.
        champion: The model.
        invert: Whether a digit has dark strokes on a bright ground.

    Raises:
        BadImageError: It cannot be used.
    """
    form = champion.form
    assert form.image_size is not None
    if form.fit == "digit":
        return fit_digit(read_grey(picture), image_shape=form.image_size, invert=invert)
    if champion.image_shape[2:] not in ((), (3,)):
        raise BadImageError(f"the model takes images with {champion.image_shape[2]} channels: give them as an NPZ file")
    return make_image(picture, form)


def _name(path: Path) -> str:
    """Return the path as printable text, whatever bytes its name has."""
    return printable(str(path))


def _files(
    paths: Iterable[Path], skip: Callable[[str, str], None], leave_out: Callable[[str, str], None]
) -> Iterator[Path]:
    for path in paths:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            skip(_name(path), error.strerror or str(error))
            continue
        if is_folder:
            yield from _walk(path, skip, leave_out)
        elif reason := _refuse(path):
            skip(_name(path), reason)
        else:
            yield path


def _refuse(path: Path) -> str | None:
    """Return why a file is not read; None if it is."""
    suffix = path.suffix.lower()
    if suffix in (*PICTURES, *SUFFIXES):
        # A pipe could block, and a device could be read for ever.
        return None if path.is_file() else "not a regular file"
    if suffix == ".npy":
        return "arrays are read from NPZ files: save it with numpy.savez"
    if suffix in (".heic", ".heif"):
        return "HEIC pictures are not read: save it as JPEG or PNG"
    if (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
        return "pictures of this format are not read: save it as PNG"
    return _NO_IMAGES


def _walk(folder: Path, skip: Callable[[str, str], None], leave_out: Callable[[str, str], None]) -> Iterator[Path]:
    """Yield the files of a folder to read. Hidden files are left out; whatever else looks like a picture is named."""

    def report(error: OSError) -> None:
        skip(_name(Path(error.filename)), error.strerror or str(error))

    is_empty = True
    for parent, folders, names in os.walk(folder, onerror=report):
        for name in filter(is_ignored, sorted(folders)):
            leave_out(_name(Path(parent) / name), "a hidden folder")
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for path in (Path(parent) / name for name in folders):
            if path.is_symlink():
                is_empty = False
                skip(_name(path), "a link to a folder, which is not followed: name that folder itself")
        for path in (Path(parent) / name for name in sorted(names) if not is_ignored(name)):
            reason = _refuse(path)
            if reason == _NO_IMAGES:
                continue
            is_empty = False
            if reason:
                skip(_name(path), reason)
            else:
                yield path
    if is_empty:
        skip(_name(folder), "a folder without pictures and NPZ files")


def _array_images(path: Path, champion: Champion, invert: Invert, skip: Callable[[str, str], None]) -> Iterator[Batch]:
    """Yield an NPZ file's images. Images of the model's shape are only inverted, if needed; digits are fitted to it."""
    counts: dict[str, int] = {}
    image_shape, is_digit = champion.image_shape, champion.form.fit == "digit"
    is_grey = len(image_shape) == 2

    def skip_array(array: str, reason: str) -> None:
        skip(f"{_name(path)}:{array}", reason)

    for array, grey in read_arrays(path, skip_array, is_grey=is_grey):
        start = counts.get(array, 0)
        counts[array] = start + len(grey)
        names = [f"{_name(path)}:{array}[{start + number}]" for number in range(len(grey))]
        if not is_digit:
            if grey.shape[1:] == image_shape:
                yield names, grey
            elif start == 0:
                skip_array(array, f"its images have the shape {grey.shape[1:]}: expected {image_shape}")
            continue
        if grey.shape[1:] == image_shape:
            inverted = is_bright(grey) if invert is Invert.auto else np.full(len(grey), invert is Invert.yes)
            yield names, np.where(inverted[:, None, None], 255 - grey, grey)
            continue
        for name, image in zip(names, grey, strict=True):
            try:
                yield [name], fit_digit(image, image_shape=(image_shape[0], image_shape[1]), invert=invert)[None]
            except BadImageError as error:
                skip(name, str(error))


def _chunks(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join small batches, because a call of the model costs more than an image."""
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
