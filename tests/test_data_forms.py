"""Images in every form in which people have them."""

import gzip
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import own_data
import pytest
import resume_home
from conftest import command
from PIL import Image
from sweep_home import descendants

import mnist_pipeline
from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Found


def find(*overrides: str) -> Found:
    return catalogue.find(compose.compose(list(overrides)).data)


def small(num_images: int = 40, shape: tuple[int, ...] = (6, 5)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (num_images, *shape), np.uint8), np.arange(num_images) % 3


def read_npz(tmp_path: Path, *overrides: str, **arrays: Any) -> Found:
    np.savez(tmp_path / "x.npz", **arrays)
    return find("data=arrays", f"data.path={tmp_path}/x.npz", *overrides)


def test_five_forms_of_the_same_images_have_the_same_digest(home: Path, tmp_path: Path) -> None:
    forms = own_data.write_forms(tmp_path / "forms", own_data.sorted_digits())
    found = {name: find(*overrides) for name, overrides in forms.items()}
    assert {one.digest for one in found.values()} == {found["arrays"].digest}
    assert {one.identity for one in found.values()} == {found["arrays"].identity}
    assert {one.class_names for one in found.values()} == {tuple("0123456789")}
    assert found["folder"].learn.images.shape == (1437, 28, 28)
    assert {name: one.name for name, one in found.items()} == {
        "arrays": "some", "idx": "idx", "csv": "train", "parquet": "parquet", "folder": "pictures",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[..., None],
        lambda x: x.astype(">i4"),
        lambda x: np.asfortranarray(x),
        lambda x: (x / 255).astype(np.float32),
        lambda x: x / 255,
        lambda x: x.astype(np.float64),
    ],
    ids=["one channel", "big-endian", "Fortran", "float32 0..1", "float64 0..1", "float64 0..255"],
)
def test_images_in_other_forms_are_the_same_bytes(change: Any, home: Path, tmp_path: Path) -> None:
    images, labels = small()
    plain = read_npz(tmp_path, x=images, y=labels)
    assert read_npz(tmp_path, x=change(images), y=labels).digest == plain.digest


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda y: y + 1, ("1", "2", "3")),
        (lambda y: y.astype(np.float32), ("0", "1", "2")),
        (lambda y: y[:, None], ("0", "1", "2")),
        (lambda y: np.eye(3, dtype=np.uint8)[y], ("0", "1", "2")),
        (lambda y: np.array(["ant", "bee", "cat"])[y], ("ant", "bee", "cat")),
    ],
    ids=["from 1", "floats", "a column", "one-hot", "texts"],
)
def test_labels_in_other_forms_are_the_same_classes(
    change: Any, names: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    images, labels = small()
    plain = read_npz(tmp_path, x=images, y=labels)
    found = read_npz(tmp_path, images=images, labels=change(labels))
    assert (found.digest, found.class_names) == (plain.digest, names)


def test_class_names_may_come_with_the_file_or_the_command(home: Path, tmp_path: Path) -> None:
    images, labels = small()
    own = read_npz(tmp_path, x=images, y=labels, class_names=np.array(["a", "b", "c"]))
    assert own.class_names == ("a", "b", "c")
    given = read_npz(tmp_path, "data.class_names=[d,e,f]", x=images, y=labels, class_names=np.array(["a", "b", "c"]))
    assert given.class_names == ("d", "e", "f")
    assert given.digest == own.digest
    assert given.identity != own.identity  # the names are in tables and figures


def test_a_test_split_is_drawn_where_there_is_none_and_kept_where_there_is(home: Path, tmp_path: Path) -> None:
    images, labels = small(90)
    drawn = read_npz(tmp_path, x=images, y=labels)
    assert (len(drawn.learn), len(drawn.test)) == (72, 18)
    assert np.bincount(drawn.test.labels).tolist() == [6, 6, 6]
    assert read_npz(tmp_path, "data.test_seed=1", x=images, y=labels).test.digest != drawn.test.digest
    assert len(read_npz(tmp_path, "data.test_size=30", x=images, y=labels).test) == 30
    kept = read_npz(
        tmp_path, x_train=images[:50], y_train=labels[:50], x_val=images[50:70], y_val=labels[50:70],
        x_test=images[70:], y_test=labels[70:],
    )  # fmt: skip
    assert kept.validation is not None
    assert (len(kept.learn), len(kept.validation), len(kept.test)) == (50, 20, 20)
    dataset = catalogue.load(compose.compose(["data=arrays", f"data.path={tmp_path}/x.npz"]).data)
    assert dataset.validation is not None
    assert dataset.validation.digest == kept.validation.digest


def test_test_images_that_are_training_images_too_are_counted(home: Path, tmp_path: Path) -> None:
    images, labels = small(60)
    found = read_npz(
        tmp_path, x_train=images[:40], y_train=labels[:40], x_test=images[35:], y_test=labels[35:]
    )  # fmt: skip
    assert found.count_leaked() == 5


def test_colour_is_kept(home: Path, tmp_path: Path) -> None:
    for channels in (3, 4):
        images, labels = small(shape=(6, 5, channels))
        assert read_npz(tmp_path, x=images, y=labels).learn.images.shape[1:] == (6, 5, channels)


def test_idx_files_are_found_where_torchvision_keeps_them(home: Path, tmp_path: Path) -> None:
    images, labels = small(shape=(6, 6))
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for subset in ("emnist-letters", "emnist-digits"):
        for split in ("train", "test"):
            (raw / f"{subset}-{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(own_data.idx_bytes(images)))
            (raw / f"{subset}-{split}-labels-idx1-ubyte").write_bytes(own_data.idx_bytes(labels + 1))
    where = ["data=idx", f"data.path={tmp_path}/EMNIST"]
    with pytest.raises(mnist_pipeline.system.errors.ConfigError, match="emnist-digits, emnist-letters"):
        find(*where)
    plain = find(*where, "data.subset=emnist-letters")
    turned = find(*where, "data.subset=emnist-letters", "data.transpose=true")
    np.testing.assert_array_equal(turned.learn.images, plain.learn.images.swapaxes(1, 2))
    assert plain.class_names == ("1", "2", "3")


def test_images_that_look_transposed_are_reported(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = own_data.sorted_digits()
    for turned in (False, True):
        folder = tmp_path / f"turned {turned}"
        folder.mkdir()
        images = arrays["x_train"].swapaxes(1, 2) if turned else arrays["x_train"]
        (folder / "train-images-idx3-ubyte").write_bytes(own_data.idx_bytes(images))
        (folder / "train-labels-idx1-ubyte").write_bytes(own_data.idx_bytes(arrays["y_train"]))
        caplog.clear()
        find("data=idx", f"data.path={folder}")
        assert ("data.transpose=true" in caplog.text) == turned


def test_csv_files_may_have_no_header_and_another_label(home: Path, tmp_path: Path) -> None:
    images, labels = small(shape=(5, 5))
    own_data.write_csv(tmp_path / "a.csv", images, labels)
    own_data.write_csv(tmp_path / "b.csv", images, labels, header=False)
    text = (tmp_path / "a.csv").read_text().replace("label", "digit")
    (tmp_path / "c.csv").write_text(text)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(text.encode()))
    plain = find("data=csv", f"data.path={tmp_path}/a.csv")
    assert find("data=csv", f"data.path={tmp_path}/b.csv").digest == plain.digest
    for name in ("c.csv", "d.csv.gz"):
        assert find("data=csv", f"data.path={tmp_path}/{name}", "data.label=digit").digest == plain.digest
    wide, labels = small(shape=(4, 3, 3))
    own_data.write_csv(tmp_path / "wide.csv", wide, labels)
    found = find("data=csv", f"data.path={tmp_path}/wide.csv", "data.image_size=[4,3]")
    assert found.learn.images.shape[1:] == (4, 3, 3)


def test_pictures_of_any_kind_become_images_of_one_size(home: Path, tmp_path: Path) -> None:
    own_data.write_shapes(tmp_path / "shapes", num_images=12)
    where = ["data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[20,24]"]
    found = {fit: find(*where, f"data.fit={fit}") for fit in ("resize", "crop", "pad")}
    assert {one.learn.images.shape[1:] for one in found.values()} == {(20, 24, 3)}
    assert len({one.digest for one in found.values()}) == 3
    assert found["pad"].class_names == own_data.SHAPES
    assert find(*where, "data.color=grey").learn.images.shape[1:] == (20, 24)
    as_digits = find(*where[:2], "data.fit=digit", "data.on_bad=skip")  # a square may leave no ground around it
    assert as_digits.learn.images.shape[1:] == (28, 28)
    assert len(as_digits.learn) > 0.9 * len(found["pad"].learn)


@pytest.mark.parametrize(
    ("mode", "format", "expected"),
    [
        ("I;16", "png", (100, 100, 100)),
        ("P", "gif", (204, 102, 51)),
        ("CMYK", "jpeg", (204, 102, 51)),
        ("RGBA", "png", (255, 255, 255)),
        ("LA", "png", (255, 255, 255)),
        ("1", "bmp", (255, 255, 255)),
        ("RGB", "webp", (204, 102, 51)),
        ("RGB", "tiff", (204, 102, 51)),
    ],
)
def test_a_picture_is_what_a_person_sees(mode: str, format: str, expected: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((8, 9), 100 * 257, np.uint16)).save(buffer, format)
    else:
        plain = Image.new("RGB", (9, 8), (204, 102, 51) if mode != "1" else "white").convert(mode)
        if mode in ("RGBA", "LA"):
            plain.putalpha(0)
        plain.save(buffer, format, **({"lossless": True} if format == "webp" else {}))
    seen = mnist_pipeline.fit_picture(buffer.getvalue())
    assert seen.shape == (8, 9, 3)
    assert np.abs(seen.astype(int) - expected).max() <= 6


def test_a_photograph_is_rotated_and_an_animation_is_its_first_picture() -> None:
    turned, buffer = Image.new("RGB", (30, 10), "white"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    turned.save(buffer, "jpeg", exif=exif)
    assert mnist_pipeline.fit_picture(buffer.getvalue()).shape == (30, 10, 3)
    frames, buffer = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    assert mnist_pipeline.fit_picture(buffer.getvalue())[0, 0].tolist() == [255, 0, 0]


def test_what_was_decoded_is_kept_and_verified(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_data.write_shapes(tmp_path / "shapes", num_images=12)
    where = ["data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[8,8]"]
    first = find(*where)
    (entry,) = (home / "mlruns" / "cache").iterdir()
    again = find(*where)
    assert (again.identity, again.test.digest) == (first.identity, first.test.digest)
    assert "before" in again.attempts[-1].outcome
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    assert find(*where).digest == first.digest  # read anew
    assert "before" not in find(*where, "data.color=grey").attempts[-1].outcome
    (tmp_path / "shapes" / "circle" / "000.png").unlink()
    assert find(*where).digest != first.digest
    monkeypatch.setattr("mnist_pipeline.data.cache.MAX_BYTES", 10_000)
    find(*where, "data.color=grey", "data.fit=pad")
    assert sum(path.stat().st_size for path in (home / "mlruns" / "cache").iterdir()) <= 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs /proc and a second core")
def test_processes_that_decode_end_with_their_parent(home: Path, tmp_path: Path) -> None:
    own_data.write_shapes(tmp_path / "shapes", num_images=400)  # so many that others help
    words = ["train", "data=folder", f"data.path={tmp_path}/shapes", "data.image_size=[64,64]"]
    killed = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(found := descendants(killed.pid)) < 2 or not any(map(is_decoding, found)):
        assert killed.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait(10)
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < deadline, "a process outlives its parent"
        time.sleep(0.05)
    assert list((home / "mlruns").glob("cache/*")) == []


def is_decoding(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
def test_five_forms_of_the_same_images_give_the_same_result(home: Path, tmp_path: Path) -> None:
    forms = own_data.write_forms(tmp_path / "forms", own_data.sorted_digits())
    small_run = ["model.hidden_width=8", "train.num_epochs=2", "data.name=same"]
    digests = {resume_home.run_here(*overrides, *small_run, "force=true").digest for overrides in forms.values()}
    assert len(digests) == 1
