"""Images and labels in any usual form, brought to bytes and class numbers, or refused with the reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Images, Split

SPLITS = ("train", "validation", "test")
CHANNELS = (1, 3, 4)

_CHUNK = 1024
_TOLERANCES = {2: 0.13, 4: 2e-3, 8: 2e-3}
"""Of a pixel in 0..1 times 255, by the bytes of a float: what rounding it to that type can move it."""

Pixels = npt.NDArray[np.uint8]


def check(given: Images) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return the splits of a data set by name, and the names of its classes.

    Raises:
        ValueError: Something is wrong; the message says what, and where.
    """
    images = given.images if isinstance(given.images, Mapping) else {"train": given.images}
    labels = given.labels if isinstance(given.labels, Mapping) else {"train": given.labels}
    if set(images) != set(labels):
        raise ValueError(f"there are images of {_join(images)}, but labels of {_join(labels)}")
    unknown = set(images) - set(SPLITS)
    if unknown or "train" not in images:
        raise ValueError(f"the splits are {_join(images)}: expected train, and perhaps validation and test")
    pixels = {name: to_pixels(images[name], where=name) for name in SPLITS if name in images}
    shapes = {name: array.shape[1:] for name, array in pixels.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"images of {_join(shapes)} have different shapes: {_join(map(str, shapes.values()))}")
    numbers, class_names = to_classes({name: labels[name] for name in pixels}, given.class_names)
    for name, array in pixels.items():
        if len(array) != len(numbers[name]):
            raise ValueError(f"{name} has {len(array):,} images, but {len(numbers[name]):,} labels")
    _require_classes(numbers, class_names)
    return {name: Split(array, numbers[name]) for name, array in pixels.items()}, class_names


def to_pixels(images: Any, *, where: str) -> Pixels:
    """Return images as uint8 (n, height, width[, channels]), contiguous; a single channel has no axis.

    Raises:
        ValueError: They are not images of whole pixels in 0..255, or of multiples of 1/255 in 0..1.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(f"the images of {where} have several shapes: bring them to one size") from error
    if array.dtype.kind not in "buif":
        raise ValueError(f"the images of {where} are of type {array.dtype}: expected numbers from 0 to 255")
    array = _require_form(array, where)
    if array.dtype != np.uint8:
        array = _convert(array, where)
    return np.ascontiguousarray(array)


def _require_form(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if array.ndim == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS:
        raise ValueError(f"the images of {where} have their channels first: move the axis, numpy.moveaxis(x, 1, -1)")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in CHANNELS):
        raise ValueError(
            f"the images of {where} have the shape {array.shape}: expected (n, height, width), or (n, height, width, "
            "channels) with 1, 3 or 4 channels"
        )
    if 0 in array.shape:
        raise ValueError(f"there are no images of {where}: their shape is {array.shape}")
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _convert(array: npt.NDArray[Any], where: str) -> Pixels:
    """Bring other numbers to bytes, a chunk at a time, so that no second array of wide numbers is made."""
    lowest, highest = array.min(), array.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError(f"the images of {where} have pixels that are NaN or infinite")
    if lowest < 0 or highest > 255:
        raise ValueError(f"the pixels of {where} range from {lowest} to {highest}: expected 0 to 255, or 0 to 1")
    is_float = array.dtype.kind == "f"
    factor = 255 if array.dtype.kind == "b" or (is_float and highest <= 1) else 1
    tolerance = _TOLERANCES.get(array.dtype.itemsize, 2e-3) if factor == 255 else 0
    made = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        if is_float:
            scaled = chunk.astype(np.float64) * factor
            chunk = np.rint(scaled)
            wrong = np.abs(scaled - chunk) > tolerance
            if wrong.any():
                number = start + int(np.argwhere(wrong)[0][0])
                value = array[number][np.abs(scaled - chunk)[number - start] > tolerance][0]
                raise ValueError(
                    f"image {number} of {where} has the pixel {value}, which is neither a whole number from 0 to 255 "
                    "nor a multiple of 1/255: bring the pixels to whole numbers yourself"
                )
        made[start : start + _CHUNK] = chunk * factor if array.dtype.kind == "b" else chunk
    return made


def to_classes(
    labels: Mapping[str, Any], class_names: Sequence[str] | None
) -> tuple[dict[str, npt.NDArray[np.int32]], tuple[str, ...]]:
    """Return the labels of each split as class numbers, int32 (n,), and the names of the classes.

    Raises:
        ValueError: A label is missing, or not a class.
    """
    arrays = {name: _read_labels(values, name) for name, values in labels.items()}
    is_text = {array.dtype.kind == "U" for array in arrays.values()}
    if len(is_text) > 1:
        raise ValueError("some labels are texts, and others are numbers: make them all the same")
    known = np.unique(np.concatenate(list(arrays.values())))
    if class_names is None:
        found = {name: np.searchsorted(known, array).astype(np.int32) for name, array in arrays.items()}
        return found, tuple(map(str, known.tolist()))
    names = tuple(map(str, class_names))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two classes have the name {twice[0]!r}")
    if is_text == {True}:
        numbers = {name: number for number, name in enumerate(names)}
        strange = [text for text in known.tolist() if text not in numbers]
        if strange:
            raise ValueError(f"the label {strange[0]!r} is not one of the {len(names)} class names")
        order = np.array([numbers[text] for text in known.tolist()], np.int32)
        return {name: order[np.searchsorted(known, array)] for name, array in arrays.items()}, names
    if known[-1] >= len(names):
        raise ValueError(f"there is a label {known[-1]}, but {len(names)} class names: they count from 0")
    return {name: array.astype(np.int32) for name, array in arrays.items()}, names


def _read_labels(labels: Any, where: str) -> npt.NDArray[Any]:
    """Return labels as whole numbers from 0, or as texts."""
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"the labels of {where} have several shapes") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "buif":
        array = _decode_one_hot(array, where)
    if array.ndim != 1:
        raise ValueError(f"the labels of {where} have the shape {array.shape}: expected (n,), or (n, classes) one-hot")
    if array.dtype.kind in "OSUT":
        return _read_texts(array, where)
    if array.dtype.kind not in "buif":
        raise ValueError(f"the labels of {where} are of type {array.dtype}: expected whole numbers or texts")
    if array.dtype.kind == "f":
        _refuse(np.isnan(array), array, f"{where} has no label (NaN)")
        _refuse(array != np.rint(array), array, f"{where} has a label that is not a whole number")
    _refuse(array < 0, array, f"{where} has a negative label")
    return array.astype(np.int64)


def _decode_one_hot(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    rows = (array != 0).sum(axis=1)
    if array.shape[1] == 0 or (rows != 1).any() or (array[array != 0] != 1).any():
        raise ValueError(f"the labels of {where} have the shape {array.shape}, but are not one-hot: one 1 in each row")
    numbers: npt.NDArray[np.intp] = array.argmax(axis=1)
    return numbers


def _read_texts(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    texts = array.tolist()
    for number, text in enumerate(texts):
        if isinstance(text, bytes):
            texts[number] = text.decode("utf-8", "replace")
        elif not isinstance(text, str):
            raise ValueError(f"image {number} of {where} has the label {text!r}: expected a text, as the others")
        if not texts[number].strip():
            raise ValueError(f"image {number} of {where} has no label")
    return np.array(texts, dtype=np.str_)


def _refuse(wrong: npt.NDArray[np.bool_], array: npt.NDArray[Any], message: str) -> None:
    if wrong.any():
        number = int(np.argmax(wrong))
        raise ValueError(f"image {number} of {message}: {array[number]}")


def _require_classes(labels: Mapping[str, npt.NDArray[np.int32]], class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise ValueError(f"there is one class only, {class_names[0]!r}: a classifier needs two")
    counts = np.bincount(labels["train"], minlength=len(class_names))
    if (counts == 0).any():
        missing = class_names[int(np.argmin(counts))]
        elsewhere = [name for name in labels if name != "train" and (labels[name] == np.argmin(counts)).any()]
        where = f", but there are some of {_join(elsewhere)}" if elsewhere else ""
        raise ValueError(f"the class {missing!r} has no images of train{where}")


def _join(names: Any) -> str:
    return " and ".join(map(str, names))
