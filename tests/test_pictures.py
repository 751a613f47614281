import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from mnist_pipeline.data.pictures import BadImageError, Invert, fit_digit, read_grey

SHAPE = (28, 28)


def stroke(height: int = 100, width: int = 60) -> npt.NDArray[np.uint8]:
    """A dark bar of 40x10 pixels on white, off the centre."""
    grey = np.full((height, width), 255, np.uint8)
    grey[5:45, 40:50] = 0
    return grey


def test_a_digit_is_brought_into_the_box_and_its_mass_into_the_centre() -> None:
    found = fit_digit(stroke(), image_shape=SHAPE, invert=Invert.auto)
    assert (found.dtype, found.shape) == (np.dtype(np.uint8), SHAPE)
    rows, columns = np.nonzero(found)
    assert (rows.min(), rows.max()) == (4, 23)  # 20 pixels of 28
    assert columns.max() - columns.min() == 4  # 5 wide: the proportions stay
    assert found.max() == 255
    assert abs((found.sum(0) * np.arange(28)).sum() / found.sum() - 14) <= 0.5
    assert abs((found.sum(1) * np.arange(28)).sum() / found.sum() - 14) <= 0.5


def test_bright_and_dark_grounds_give_the_same() -> None:
    dark = fit_digit(stroke(), image_shape=SHAPE, invert=Invert.auto)
    np.testing.assert_array_equal(fit_digit(255 - stroke(), image_shape=SHAPE, invert=Invert.auto), dark)
    np.testing.assert_array_equal(fit_digit(stroke(), image_shape=SHAPE, invert=Invert.yes), dark)
    with pytest.raises(BadImageError, match="contrast"):
        fit_digit(stroke(), image_shape=SHAPE, invert=Invert.no)  # nothing is brighter than the ground


def test_noise_does_not_stretch_the_box() -> None:
    chance = np.random.default_rng(0)
    noisy = np.clip(stroke(300, 200) * 0.6 + 60 + chance.normal(0, 4, (300, 200)), 0, 255).astype(np.uint8)
    expected = fit_digit(stroke(300, 200), image_shape=SHAPE, invert=Invert.auto)
    found = fit_digit(noisy, image_shape=SHAPE, invert=Invert.auto)
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("grey", [np.full((30, 30), 200, np.uint8), np.zeros((1, 1), np.uint8)])
def test_an_empty_image_is_refused(grey: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(BadImageError, match="contrast"):
        fit_digit(grey, image_shape=SHAPE, invert=Invert.auto)


def test_images_of_mnist_are_unchanged(mnist_dir: Path) -> None:
    with np.load(mnist_dir / "mnist.npz") as arrays:
        originals = arrays["x_test"][:300]
    same = 0
    for original in originals:
        found = fit_digit(original, image_shape=SHAPE, invert=Invert.auto)
        visible = original >= 21
        same += np.abs(found.astype(int) - original)[visible].max() <= 3
    assert same >= 290


def save(path: Path, image: Image.Image, **named: object) -> Path:
    image.save(path, **named)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("width", [1, 3])
def test_a_thin_frame_changes_nothing(ink: int, margin: int, width: int) -> None:
    page = np.full((180, 180), 255 - ink, np.uint8)
    page[40:50, 60:120] = page[50:140, 110:120] = ink  # a seven
    framed = Image.fromarray(page)
    ImageDraw.Draw(framed).rectangle([margin, margin, 179 - margin, 179 - margin], outline=ink, width=width)
    expected = fit_digit(page, image_shape=(28, 28), invert=Invert.auto)
    invert = Invert.no if ink else Invert.yes
    for way in (Invert.auto, invert):
        found = fit_digit(np.asarray(framed), image_shape=(28, 28), invert=way)
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_an_empty_frame_has_no_digit() -> None:
    framed = np.full((90, 90), 255, np.uint8)
    framed[[0, -1]] = framed[:, [0, -1]] = 0
    with pytest.raises(BadImageError):
        fit_digit(framed, image_shape=(28, 28), invert=Invert.auto)


def test_strokes_along_the_edges_are_no_frame() -> None:
    seven = np.zeros((90, 60), np.uint8)
    seven[:8] = seven[:, 26:34] = 255  # cropped tightly
    fitted = fit_digit(seven, image_shape=(28, 28), invert=Invert.no)
    assert ((fitted > 128).any(axis=1).sum(), (fitted > 128).any(axis=0).sum()) == (20, 13)


def test_pictures_of_every_kind_are_read_as_the_same_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(stroke())
    expected = np.asarray(grey)
    transparent = Image.merge("LA", (Image.new("L", grey.size, 0), Image.fromarray(255 - stroke())))
    kinds = {
        "grey.png": grey,
        "colour.png": grey.convert("RGB"),
        "palette.png": grey.convert("P"),
        "bits.png": grey.convert("1"),
        "deep.png": Image.fromarray(expected.astype(np.uint16) * 257),
        "transparent.png": transparent,
    }
    for name, image in kinds.items():
        np.testing.assert_array_equal(read_grey(save(tmp_path / name, image)), expected, err_msg=name)
    lossy = {"grey.jpg": grey, "colour.JPEG": grey.convert("RGB"), "print.jpg": grey.convert("CMYK")}
    for name, image in lossy.items():
        found = read_grey(save(tmp_path / name, image, format="JPEG", quality=95))
        assert np.abs(found.astype(int) - expected).mean() < 2, name


def test_a_photograph_is_rotated_by_its_orientation_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = Image.fromarray(np.rot90(stroke()))
    found = read_grey(save(tmp_path / "turned.png", turned, exif=exif))
    np.testing.assert_array_equal(found, stroke())


def test_a_large_picture_is_reduced_before_it_is_examined(tmp_path: Path) -> None:
    found = read_grey(save(tmp_path / "large.jpg", Image.new("L", (3000, 2000), 255)))
    assert max(found.shape) <= 512


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of black and white pixels, with whatever size its header claims."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(content, "JPEG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bomb.png", png(60_000, 60_000, bytes(7501 * 1000)), "60000x60000 pixels are too many|decompression bomb"),
        ("claims.png", png(8_000, 8_000, b""), "8000x8000 pixels are too many: at most 50,000,000"),
        ("text.png", b"a seven, I swear", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("cut.jpg", jpeg()[:2000], "truncated"),
        ("cut.png", png(100, 100, bytes(1300))[:60], "truncated|broken|not enough"),
        ("gif.png", b"GIF89a" + bytes(50), "not a picture"),
    ],
)
def test_a_damaged_or_hostile_picture_is_refused(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=f"(?i){reason}"):
        read_grey(path)


def test_white_strokes_on_a_transparent_ground_are_seen(tmp_path: Path) -> None:
    opaque = Image.fromarray(255 - stroke())
    drawn = Image.merge("LA", (Image.new("L", opaque.size, 255), opaque))
    np.testing.assert_array_equal(read_grey(save(tmp_path / "white.png", drawn)), 255 - stroke())


def test_good_pixels_are_read_despite_bad_metadata(tmp_path: Path) -> None:
    path = save(tmp_path / "odd.png", Image.fromarray(stroke()), exif=b"garbage that is no EXIF at all")
    np.testing.assert_array_equal(read_grey(path), stroke())
