"""`data=csv`: one image a row, one pixel a column, as in Kaggle's Digit Recognizer."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from mnist_pipeline.data.checking import CHANNELS
from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.system import memory, paths

_BLOCK_BYTES = 1 << 18  # larger ones are little faster, and take more memory


def load(
    path: str,
    *,
    test_path: str | None = None,
    label: str = "label",
    image_size: tuple[int, int] | None = None,
    class_names: list[str] | None = None,
) -> Images:
    """Return the images in the rows of CSV files.

    A file without a header has its labels in the first column. A file may be compressed (.gz, .bz2).

    Args:
        path: The file.
        test_path: Another one, with the test split.
        label: The column of the labels, if there is a header.
        image_size: Height and width in pixels; null: the square root of the number of columns.
        class_names: Names of the classes in the order of the labels, which count from 0.

    Raises:
        ValueError: A file is damaged, has no labels, or its pixels are not those of images.
    """
    files = {"train": paths.expand(path), **({"test": paths.expand(test_path)} if test_path else {})}
    images, labels = {}, {}
    for split, file in files.items():
        images[split], labels[split] = _read(file, label, image_size)
    return Images(
        images, labels, class_names=class_names, attempts=[Attempt(str(file), "found") for file in files.values()]
    )


def _read(file: Path, label: str, image_size: tuple[int, int] | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if not file.is_file():
        raise ValueError(f"{file} is not a file: give a CSV file")
    try:
        header = _read_header(file)
        names = (
            header
            if header is not None
            else ["label", *(f"pixel{number}" for number in range(_count_columns(file) - 1))]
        )
        if header is not None and label not in header:
            raise ValueError(
                f"{file.name} has no column {label!r} (its first is {header[0]!r}): name the one with the labels, "
                "data.label=NAME"
            )
        label_name = label if header is not None else "label"
        shape = _find_shape(len(names) - 1, image_size)
        try:
            return _read_rows(file, names, label_name, shape, pa.uint8(), has_header=header is not None)
        except pa.ArrowInvalid:  # fractions, or pixels out of range: read once more, to report which
            return _read_rows(file, names, label_name, shape, pa.float64(), has_header=header is not None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _read_rows(
    file: Path, names: list[str], label: str, shape: tuple[int, ...], dtype: pa.DataType, *, has_header: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    pixels = [name for name in names if name != label]
    num_rows = _count_rows(file)
    memory.require((num_rows, *shape), dtype.to_pandas_dtype(), instead="use fewer rows")
    array = np.empty((num_rows, len(pixels)), dtype.to_pandas_dtype())
    labels: list[Any] = []
    with csv.open_csv(
        file,
        read_options=csv.ReadOptions(
            column_names=names, skip_rows=1 if has_header else 0, block_size=_BLOCK_BYTES, encoding="utf8"
        ),
        convert_options=csv.ConvertOptions(
            column_types={**dict.fromkeys(pixels, dtype), label: pa.string()},
            null_values=[""],
            strings_can_be_null=True,
        ),
    ) as reader:
        for batch in reader:
            missing = [name for name in pixels if batch.column(name).null_count]
            if missing:
                is_missing = batch.column(missing[0]).is_null().to_numpy(zero_copy_only=False)
                row = len(labels) + int(np.argmax(is_missing))
                raise ValueError(f"{file.name} has no pixel in the column {missing[0]} of image {row}")
            rows = array[len(labels) : len(labels) + len(batch)]
            np.stack([batch.column(name).to_numpy() for name in pixels], axis=1, out=rows)
            labels += batch.column(label).to_pylist()
    if not labels:
        raise ValueError(f"{file.name} has no rows")
    return array[: len(labels)].reshape(-1, *shape), _read_labels(labels, file)


def _read_labels(labels: list[str | None], file: Path) -> npt.NDArray[Any]:
    for row, text in enumerate(labels):
        if text is None:
            raise ValueError(f"{file.name} has no label for image {row}")
    try:
        return np.array(labels, np.float64)
    except ValueError:
        return np.array(labels, np.str_)


def _find_shape(num_pixels: int, image_size: tuple[int, int] | None) -> tuple[int, ...]:
    if image_size is None:
        side = math.isqrt(num_pixels)
        if side * side != num_pixels or side == 0:
            raise ValueError(
                f"there are {num_pixels} columns of pixels, no square: give data.image_size=[HEIGHT,WIDTH]"
            )
        return side, side
    height, width = image_size
    channels, rest = divmod(num_pixels, height * width) if height > 0 and width > 0 else (0, 1)
    if rest or channels not in CHANNELS:
        raise ValueError(f"data.image_size={list(image_size)}: there are {num_pixels} columns of pixels")
    return (height, width) if channels == 1 else (height, width, channels)


def _read_header(file: Path) -> list[str] | None:
    """Return the names of the columns; None if the first row has numbers."""
    first = next(_lines(file), "")
    names = [name.strip().strip('"') for name in first.split(",")]
    if len(names) < 2:
        raise ValueError(f"{file.name} has one column only: expected a label and pixels, separated by commas")
    return None if all(_is_number(name) for name in names[1:]) else names


def _count_columns(file: Path) -> int:
    return next(_lines(file)).count(",") + 1


def _count_rows(file: Path) -> int:
    """Return the number of lines, which is at least that of rows."""
    with pa.input_stream(str(file), compression="detect") as stream:
        num_lines = 1
        while block := stream.read(_BLOCK_BYTES):
            num_lines += bytes(block).count(b"\n")
        return num_lines


def _lines(file: Path) -> Iterator[str]:
    with pa.input_stream(str(file), compression="detect", buffer_size=1 << 16) as stream:
        rest = b""
        while block := stream.read(1 << 16):
            *lines, rest = (rest + block).split(b"\n")
            yield from (line.decode("utf-8-sig", "replace").rstrip("\r") for line in lines)
        if rest:
            yield rest.decode("utf-8-sig", "replace")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
