import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mnist_pipeline.data.pictures import BadImageError
from mnist_pipeline.serving import arrays


def read(path: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Read the arrays of a file; the first bad one is an error here."""

    def fail(name: str, reason: str) -> None:
        raise BadImageError(f"{name}: {reason}")

    return arrays.read_arrays(path, fail)


def chunks(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, grey.shape) for name, grey in read(path)]


def test_arrays_come_in_chunks_and_labels_are_passed_over(tmp_path: Path) -> None:
    many = np.arange(2100, dtype=np.int64)[:, None, None] % 256 * np.ones((1, 28, 28), np.int64)
    np.savez_compressed(tmp_path / "a.npz", x=many.astype(np.uint8), wide=many[:3], y=np.zeros(2100))
    assert chunks(tmp_path / "a.npz") == [
        ("x", (1024, 28, 28)),
        ("x", (1024, 28, 28)),
        ("x", (52, 28, 28)),
        ("wide", (3, 28, 28)),
    ]
    found = np.concatenate([grey for name, grey in read(tmp_path / "a.npz") if name == "x"])
    np.testing.assert_array_equal(found, many.astype(np.uint8))


def test_colour_and_boolean_arrays_become_grey(tmp_path: Path) -> None:
    white = np.full((2, 30, 20, 3), 255, np.uint8)
    np.savez(tmp_path / "a.npz", colour=white, channel=white[..., :1], bits=white[..., 0] > 0)
    for name, grey in read(tmp_path / "a.npz"):
        assert grey.shape == (2, 30, 20), name
        assert (grey == 255).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_and_to_255_are_the_same_bytes(dtype: type, tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.savez(tmp_path / "a.npz", small=(grey / 255).astype(dtype), large=grey.astype(dtype))
    found = list(read(tmp_path / "a.npz"))
    assert [name for name, _ in found] == ["small", "large"]
    for _, pixels in found:
        np.testing.assert_array_equal(pixels, grey)


def npz(tmp_path: Path, **arrays: npt.NDArray[np.generic]) -> Path:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((2, 28, 28), np.nan), "nan to nan: expected 0 to 255"),
        (np.full((2, 28, 28), 0.5j), "complex128"),
        (np.full((2, 28, 28), 256), "256 to 256: expected 0 to 255"),
        (np.full((2, 28, 28), -1), "-1 to -1: expected 0 to 255"),
        (np.array([[{}, {}]] * 3, dtype=object), "pickled objects"),
        (np.zeros((2, 28, 28), "M8[s]"), "datetime64"),
        (np.zeros((2, 2, 28, 28), np.uint8), "its shape is"),
        (np.zeros((2, 0, 28), np.uint8), r"\(2, 0, 28\)"),
        (np.zeros((0, 28, 28), np.uint8), r"\(0, 28, 28\)"),
        (np.zeros((28, 28, 3), np.uint8), "a single image with array"),
        (np.zeros((300, 784), np.uint8), "expected \\(n, height, width\\)"),
        (np.zeros(5, np.uint8), "no array of images"),
        (np.array([{}], dtype=object), "no array of images"),
        (np.asfortranarray(np.zeros((2, 28, 28), np.uint8)), "Fortran"),
    ],
)
def test_arrays_that_are_not_images_are_refused(array: npt.NDArray[np.generic], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=reason):
        chunks(npz(tmp_path, x=array))


def test_a_damaged_array_is_refused_whole(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.arange(28 * 28 * 30, dtype=np.uint16).reshape(30, 28, 28).astype(np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError):
        chunks(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(BadImageError, match="CRC"):
        chunks(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(BadImageError, match="zip"):
        chunks(path)


def test_an_array_with_one_pixel_out_of_range_is_refused_whole(tmp_path: Path) -> None:
    pixels = np.zeros((3000, 28, 28), np.int16)
    pixels[2999, 5, 5] = 256
    with pytest.raises(BadImageError, match="0 to 256: expected 0 to 255"):
        chunks(npz(tmp_path, x=pixels))


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
    with pytest.raises(BadImageError, match=r"100 bytes.*862,017,116,176,384"):
        chunks(tmp_path / "a.npz")


def test_an_image_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(arrays, "MAX_PIXELS", 800)
    assert chunks(npz(tmp_path, x=np.zeros((2, 28, 28), np.uint8))) == [("x", (2, 28, 28))]
    with pytest.raises(BadImageError, match="30x28 pixels are too many"):
        chunks(npz(tmp_path, x=np.zeros((2, 28, 30), np.uint8)))


def test_a_bad_array_does_not_stop_the_others(tmp_path: Path) -> None:
    good = np.zeros((2, 28, 28), np.uint8)
    path = npz(tmp_path, a=good, embedding=np.full((2, 64, 64), -1.5), b=good, names=np.array([{}], dtype=object))
    told: list[str] = []
    found = [name for name, _ in arrays.read_arrays(path, lambda name, reason: told.append(name))]
    assert (found, told) == (["a", "b"], ["embedding"])


def test_a_hostile_header_is_a_bad_array(tmp_path: Path) -> None:
    content = b"{'descr': ("
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content)
    with pytest.raises(BadImageError, match="x: "):
        chunks(tmp_path / "a.npz")
