"""How fast people's own data is read, from the files and from the cache, and how much memory that takes."""

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import Row, python, run

NUM_PNG = 60_000
NUM_JPEG = 5_000
NUM_CSV_ROWS = 42_000

# The imports are not counted: a command makes them anyway.
_FIND = """
import sys, time
from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue, csv, folder
if __name__ == "__main__":
    config = compose.compose(sys.argv[1:]).data if len(sys.argv) > 1 else None
    start = time.perf_counter()
    if config:
        found = catalogue.find(config)
        print(time.perf_counter() - start, sum(part.images.nbytes for part in (found.learn, found.test)))
"""


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(os.environ["MNIST_PIPELINE_DATA_DIR"]) / "mnist.npz") as arrays:
        return arrays["x_train"], arrays["y_train"]


def _write_png(folder: Path) -> None:
    images, labels = _mnist()
    for number, (image, label) in enumerate(zip(images[:NUM_PNG], labels[:NUM_PNG], strict=True)):
        file = folder / str(label) / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, compress_level=1)


def _write_jpeg(folder: Path) -> None:
    images, labels = _mnist()
    for number in range(NUM_JPEG):
        file = folder / str(labels[number]) / f"{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).convert("RGB").resize((640, 480)).save(file)


def _write_csv(file: Path) -> None:
    images, labels = _mnist()
    rows = np.concatenate([labels[:NUM_CSV_ROWS, None], images[:NUM_CSV_ROWS].reshape(-1, 784)], axis=1)
    header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    np.savetxt(file, rows, fmt="%d", delimiter=",", header=header, comments="")


def measure_data() -> Iterator[Row]:
    """Measure three kinds of data: small pictures, photographs, and a table."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        script = folder / "find.py"  # a file: the processes that decode import the main module again
        script.write_text(_FIND)
        bare = statistics.median(run(python(str(script))).peak_bytes for _ in range(3))
        _write_png(folder / "png")
        _write_jpeg(folder / "jpeg")
        _write_csv(folder / "x.csv")
        shares = []
        png = (f"`data=folder`, {NUM_PNG:,} PNG of 28x28, first read", "png", "data.color=grey", NUM_PNG, "10,000")
        jpeg = (f"the same, {NUM_JPEG:,} JPEG of 640x480 to 64x64", "jpeg", "data.image_size=[64,64]", NUM_JPEG, "500")
        for what, name, option, number, bound in (png, jpeg):
            words = [f"data.path={folder}/{name}", option]
            with tempfile.TemporaryDirectory() as home:
                first, second = (run(python(str(script), "data=folder", *words), home=Path(home)) for _ in range(2))
            seconds, num_bytes = map(float, first.output.split())
            shares.append((first.peak_bytes - bare) / num_bytes)
            yield Row(what, f"{number / seconds:,.0f} images/s", f"at least {bound}")
            if name == "png":
                yield Row("the same, from the cache", f"{float(second.output.split()[0]):.2f} s", "under 1 s")
        tables = [run(python(str(script), "data=csv", f"data.path={folder}/x.csv")) for _ in range(3)]
        seconds = statistics.median(float(child.output.split()[0]) for child in tables)
        shares.append((tables[0].peak_bytes - bare) / float(tables[0].output.split()[1]))
        yield Row(f"`data=csv`, {NUM_CSV_ROWS:,} rows of 785 columns", f"{seconds:.1f} s", "under 3 s")
        listed = ", ".join(f"{share:.2f}" for share in shares)
        yield Row(
            "memory of reading these three above that of the imports, in sizes of the decoded arrays",
            listed,
            "at most 1.3",
        )
