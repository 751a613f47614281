"""Data that cannot be used: one line, with what is wrong and where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue
from mnist_pipeline.system.errors import ConfigError

X = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)
Y = np.arange(40) % 3


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        catalogue.load(compose.compose(list(overrides)).data)
    text = str(caught.value)
    assert "\n" not in text
    assert "internal" not in text
    return text


def spoil(array: np.ndarray, value: Any, dtype: Any = np.float64) -> np.ndarray:
    spoilt = array.astype(dtype)
    spoilt[(7, *(0,) * (array.ndim - 1))] = value
    return spoilt


@pytest.mark.parametrize(
    ("arrays", "facts"),
    [
        ({"x": X, "y": spoil(Y, np.nan)}, ["image 7", "no label"]),
        ({"x": X, "y": spoil(Y, 1.5)}, ["image 7", "1.5"]),
        ({"x": X, "y": spoil(Y, -1)}, ["image 7", "negative"]),
        ({"x": X, "y": Y[:-1]}, ["40 images", "39 labels"]),
        ({"x": X, "y": np.zeros(40)}, ["one class", "'0'"]),
        ({"x": X, "y": np.where(np.arange(40) == 7, 9, Y)}, ["'9'", "1 image"]),
        ({"x": X, "y": np.stack([Y, Y], axis=1)}, ["(40, 2)", "one-hot"]),
        ({"x": X, "y": np.array(["a", ""] * 20)}, ["image 1", "no label"]),
        ({"x": spoil(X, np.nan), "y": Y}, ["NaN"]),
        ({"x": spoil(X, np.inf), "y": Y}, ["infinite"]),
        ({"x": spoil(X, 256), "y": Y}, ["256"]),
        ({"x": spoil(X, -1, np.int16), "y": Y}, ["-1"]),
        ({"x": spoil(X / 255, 0.1234), "y": Y}, ["image 7", "0.1234"]),
        ({"x": X.reshape(40, 36), "y": Y}, ["(40, 36)"]),
        ({"x": np.zeros((40, 3, 6, 6)), "y": Y}, ["channels first"]),
        ({"x": np.zeros((40, 6, 6, 2)), "y": Y}, ["(40, 6, 6, 2)"]),
        ({"x": np.zeros((0, 6, 6)), "y": np.zeros(0)}, ["no images"]),
        ({"x": np.array([1, "a"], dtype=object), "y": Y}, ["Python objects"]),
        ({"x": X}, ["no labels"]),
        ({"x": X, "images": X, "y": Y}, ["both"]),
        ({"a": X}, ["x_train"]),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :5], "y_test": Y}, ["different shapes"]),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, ["'3'", "test"]),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_used_are_refused(
    arrays: dict[str, np.ndarray], facts: list[str], home: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", allow_pickle=True, **arrays)
    text = refusal("data=arrays", f"data.path={tmp_path}/x.npz")
    assert all(fact in text for fact in facts), text
    assert list((home / "mlruns").glob("cache/*")) == []


@pytest.mark.parametrize(
    ("names", "facts"),
    [("[a,b]", ["label 2", "2 class names"]), ("[a,b,b]", ["'b'"]), ("[a,b,c,d]", ["'d'", "no images"])],
)
def test_class_names_that_do_not_fit_are_refused(names: str, facts: list[str], home: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    text = refusal("data=arrays", f"data.path={tmp_path}/x.npz", f"data.class_names={names}")
    assert all(fact in text for fact in facts), text


@pytest.mark.parametrize("option", ["arrays", "csv", "folder", "idx", "parquet"])
def test_a_path_that_is_not_there_or_is_damaged_is_refused(option: str, home: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in refusal(f"data={option}", f"data.path={tmp_path}/nothing")
    (tmp_path / "empty").mkdir()
    refusal(f"data={option}", f"data.path={tmp_path}/empty")
    (tmp_path / "damaged").write_bytes(b"PK\x03\x04 not really\n\xff\xfe" * 20)
    refusal(f"data={option}", f"data.path={tmp_path}/damaged")


def shapes(tmp_path: Path) -> Path:
    return own_data.write_shapes(tmp_path / "shapes", num_images=12)


def bomb(folder: Path) -> None:
    header = own_data.png_bytes(np.zeros((1, 1), np.uint8))
    wide = header.replace(b"\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00", b"\x00\x01\x00\x00\x00\x01\x00\x00\x08\x00")
    (folder / "circle" / "bomb.png").write_bytes(wide)


def truncate(folder: Path) -> None:
    file = folder / "circle" / "001.jpg"
    file.write_bytes(file.read_bytes()[:300])


def copy_into_another_class(folder: Path) -> None:
    (folder / "trïangle" / "000 copy.png").write_bytes((folder / "circle" / "000.png").read_bytes())


def link_out(folder: Path) -> None:
    (folder.parent / "outside.png").write_bytes(own_data.png_bytes(np.zeros((9, 9), np.uint8)))
    (folder / "circle" / "out.png").symlink_to(folder.parent / "outside.png")


@pytest.mark.parametrize(
    ("spoil", "name", "num_lost"),
    [
        (bomb, "bomb.png", 0), (truncate, "001.jpg", 1), (copy_into_another_class, "000 copy.png", 0),
        (link_out, "out.png", 0),
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_used_is_named_or_left_out(
    spoil: Callable[[Path], None], name: str, num_lost: int, home: Path, tmp_path: Path
) -> None:
    spoil(shapes(tmp_path))
    where = ["data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[8,8]"]
    text = refusal(*where)
    assert name in text
    assert "data.on_bad=skip" in text
    found = catalogue.find(compose.compose([*where, "data.on_bad=skip"]).data)
    assert len(found.learn) + len(found.test) == 36 - num_lost
    assert len(found.skipped) == 1
    assert name in found.skipped[0]


def test_a_link_in_a_circle_ends(home: Path, tmp_path: Path) -> None:
    (shapes(tmp_path) / "circle" / "again").symlink_to(tmp_path / "shapes")
    assert "again" in refusal("data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[8,8]")


def test_stray_files_are_named_and_too_many_are_refused(home: Path, tmp_path: Path) -> None:
    folder = shapes(tmp_path)
    (folder / "notes.txt").write_text("x")
    (folder / "circle" / "Thumbs.db").write_text("x")
    (folder / ".hidden").mkdir()
    where = ["data=folder", f"data.path={folder}", "data.image_size=[8,8]"]
    assert [line.split(":")[0] for line in catalogue.find(compose.compose(where).data).skipped] == ["notes.txt"]
    for number in range(20):
        (folder / "circle" / f"{number}.doc").write_text("x")
    assert "21 files" in refusal(*where)


def test_folders_without_what_is_needed_are_refused(home: Path, tmp_path: Path) -> None:
    folder = shapes(tmp_path)
    assert "several sizes" in refusal("data=folder", f"data.path={folder}")
    assert "image_size=[0, 8]" in refusal("data=folder", f"data.path={folder}", "data.image_size=[0,8]")
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "test")
    assert "none for train" in refusal("data=folder", f"data.path={tmp_path}/split", "data.image_size=[8,8]")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a,b\n1,2\n", ["'label'"]),
        ("label,p0,p1,p2,p3\n0,1,2,3,four\n1,1,1,1,1\n", ["four"]),
        ("label,p0,p1,p2,p3\n0,1,2,3\n1,1,1,1,1\n", ["5"]),
        ("label,p0,p1,p2,p3\n0,1,2,3,\n1,1,1,1,1\n", ["p3", "image 0"]),
        ("label,p0,p1,p2,p3\n,1,2,3,4\n1,1,1,1,1\n", ["no label", "image 0"]),
        ("label,p0,p1,p2,p3\n0,1,2,3,256\n1,1,1,1,1\n", ["256"]),
        ("label,p0,p1,p2\n0,1,2,3\n1,1,1,1\n", ["3 columns", "data.image_size"]),
        ("", ["one column"]),
    ],
)
def test_csv_files_that_cannot_be_used_are_refused(text: str, facts: list[str], home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    found = refusal("data=csv", f"data.path={tmp_path}/x.csv")
    assert all(fact in found for fact in facts), found


def test_parquet_files_that_cannot_be_used_are_refused(home: Path, tmp_path: Path) -> None:
    where = ["data=parquet", f"data.path={tmp_path}/x.parquet"]
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "x.parquet")
    assert "text, label" in refusal(*where)
    own_data.write_parquet(tmp_path / "x.parquet", X, Y, ["a", "b", "c"])
    assert "'digit'" in refusal(*where, "data.label=digit")
    rows = pq.read_table(tmp_path / "x.parquet")
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    named = pa.array([{"bytes": None, "path": "/etc/passwd"}] * len(rows), kinds)
    pq.write_table(rows.set_column(0, "image", named), tmp_path / "x.parquet")
    assert "without bytes" in refusal(*where)


def test_data_that_does_not_fit_into_memory_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes(tmp_path)
    monkeypatch.setattr("mnist_pipeline.system.memory.available_bytes", lambda: 100_000)
    text = refusal("data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[400,400]")
    assert "data.image_size" in text
    assert json.dumps("GB") not in text
