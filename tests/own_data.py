"""Data as people have it: the digits in five forms, and pictures of three shapes in colour."""

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import digits_arrays
from PIL import Image, ImageDraw

Arrays = dict[str, np.ndarray]
SHAPES = ("circle", "square, filled", "trïangle")


def sorted_digits() -> Arrays:
    """Return the digits by class, as they lie in folders."""
    arrays = digits_arrays()
    made: Arrays = {}
    for split in ("train", "test"):
        order = np.argsort(arrays[f"y_{split}"], kind="stable")
        made |= {f"{letter}_{split}": arrays[f"{letter}_{split}"][order] for letter in "xy"}
    return made


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def png_bytes(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def write_csv(path: Path, images: np.ndarray, labels: np.ndarray, *, header: bool = True) -> None:
    names = ",".join(["label", *(f"pixel{number}" for number in range(images[0].size))])
    rows = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
    np.savetxt(path, rows, fmt="%d", delimiter=",", header=names if header else "", comments="")


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    rows = {
        "image": [{"bytes": png_bytes(image), "path": None} for image in images],
        "label": labels.astype(np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows, schema=schema), path)


def write_pictures(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / str(label) / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png_bytes(image))


def write_forms(folder: Path, arrays: Arrays) -> dict[str, list[str]]:
    """Write the same data in five forms; return the overrides that read each."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "some.npz", allow_pickle=False, **arrays)
    (folder / "idx").mkdir()
    for split, name in (("train", "train"), ("test", "t10k")):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        (folder / "idx" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / "idx" / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        write_csv(folder / f"{split}.csv", images, labels)
        write_parquet(folder / "parquet" / f"{split}-00000-of-00001.parquet", images, labels, list("0123456789"))
        write_pictures(folder / "pictures" / split, images, labels)
    return {
        "arrays": ["data=arrays", f"data.path={folder}/some.npz"],
        "idx": ["data=idx", f"data.path={folder}/idx"],
        "csv": ["data=csv", f"data.path={folder}/train.csv", f"data.test_path={folder}/test.csv"],
        "parquet": ["data=parquet", f"data.path={folder}/parquet", "data.color=grey"],
        "folder": ["data=folder", f"data.path={folder}/pictures", "data.color=grey"],
    }


def write_shapes(folder: Path, *, num_images: int = 60) -> Path:
    """Write bright shapes on dark grounds, in several sizes and formats, a folder for each."""
    random = np.random.default_rng(0)
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
        for number in range(num_images):
            width, height = map(int, random.integers(50, 90, 2))
            image = Image.new("RGB", (width, height), tuple(map(int, random.integers(0, 90, 3))))
            half = min(width, height) // 2 - 4
            size, x, y = int(random.integers(half // 2, half)), width // 2, height // 2
            draw, colour = ImageDraw.Draw(image), tuple(map(int, random.integers(140, 255, 3)))
            if name == "circle":
                draw.ellipse([x - size, y - size, x + size, y + size], fill=colour)
            elif name == "trïangle":
                draw.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=colour)
            else:
                draw.rectangle([x - size, y - size, x + size, y + size], fill=colour)
            image.save(folder / name / f"{number:03}.{'jpg' if number % 2 else 'png'}")
    return folder
