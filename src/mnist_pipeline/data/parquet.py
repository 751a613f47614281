"""`data=parquet`: pictures in the rows of Parquet files, as Hugging Face keeps data sets of images.

An image is a structure with its file's bytes, a label the number of a class; the schema's metadata has the names of the
classes, and the files' names tell the splits (https://huggingface.co/docs/datasets, "Image" and "ClassLabel").
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mnist_pipeline.data.dataset import Attempt, Images
from mnist_pipeline.data.decoding import decode
from mnist_pipeline.data.pictures import Form
from mnist_pipeline.system import paths

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(_SPLITS)})(?:[^a-z]|$)")


def load(
    path: str,
    *,
    image: str | None = None,
    label: str = "label",
    image_size: tuple[int, int] | None = None,
    color: Literal["grey", "rgb"] = "rgb",
    fit: Literal["resize", "crop", "pad", "digit"] = "resize",
    on_bad: Literal["fail", "skip"] = "fail",
) -> Images:
    """Return the pictures of Parquet files.

    Args:
        path: A file, or a folder of them.
        image: The column of the pictures; null: the only one that can be.
        label: The column of the labels.
        image_size: Height and width in pixels; null: that of the pictures, which then all have the same.
        color: Grey, or red, green and blue.
        fit: How a picture becomes an image of that size, see `pictures.Form`.
        on_bad: What to do about a picture that cannot be used.

    Raises:
        ValueError: A file is damaged, has no such columns, or a picture cannot be used.
    """
    root = paths.expand(path)
    form = Form(image_size, color, fit)
    images, labels = {}, {}
    skipped: list[str] = []
    class_names: list[str] | None = None
    for split, files in _find_files(root).items():
        contents, numbers, class_names = _read(files, image, label)

        def note(number: int, reason: str, split: str = split) -> None:
            text = f"image {number} of {split}: {reason}"
            if on_bad == "fail":
                raise ValueError(f"{text}; leave such pictures out with data.on_bad=skip")
            skipped.append(text)

        images[split], kept = decode(contents, form, on_bad=note)
        labels[split] = numbers[kept]
    return Images(images, labels, class_names=class_names, attempts=[Attempt(str(root), "found")], skipped=skipped)


def _find_files(root: Path) -> dict[str, list[Path]]:
    if root.is_file():
        return {"train": [root]}
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    if not files:
        raise ValueError(f"{root} is neither a Parquet file nor a folder of them")
    found: dict[str, list[Path]] = {}
    for file in files:
        match = _SPLIT.search(file.name.lower())
        found.setdefault(_SPLITS[match[1]] if match else "train", []).append(file)
    return found


def _read(files: list[Path], image: str | None, label: str) -> tuple[list[bytes], npt.NDArray[Any], list[str] | None]:
    contents: list[bytes] = []
    labels: list[Any] = []
    names: list[str] | None = None
    for file in files:
        try:
            schema = pq.read_schema(file)
            column = _find_image_column(schema, image, file)
            if label not in schema.names:
                there = ", ".join(schema.names)
                raise ValueError(f"{file.name} has no column {label!r}: it has {there}; give data.label=")
            table = pq.read_table(file, columns=[column, label])
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file.name} cannot be read: {' '.join(str(error).split())[:200]}") from error
        names = _class_names(schema, label)
        contents += [_to_bytes(value, file) for value in table.column(column).to_pylist()]
        labels += table.column(label).to_pylist()
    missing = [number for number, value in enumerate(labels) if value is None]
    if missing:
        raise ValueError(f"image {missing[0]} of {files[0].name} has no label")
    return contents, np.array(labels), names


def _find_image_column(schema: pa.Schema, image: str | None, file: Path) -> str:
    usable = [field.name for field in schema if _is_image(field.type)]
    if image is not None and image in usable:
        return image
    if image is None and len(usable) == 1:
        return str(usable[0])
    raise ValueError(
        f"{file.name} has the columns {', '.join(schema.names)}: expected {image or 'one column'} to hold pictures, a "
        f"structure with `bytes`{'; name it with data.image=' if len(usable) > 1 else ''}"
    )


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _to_bytes(value: Any, file: Path) -> bytes:
    content = value["bytes"] if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError(f"{file.name} has a picture without bytes: it may only name a file, which is not followed")
    return content


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return list(map(str, names)) if isinstance(names, list) else None
