"""Pictures from files, and how each is made an image of the size and the colours that a data set has.

Nothing but Pillow is needed, so that the processes that read many pictures start quickly.
"""

import enum
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".jp2", ".avif",
)  # fmt: skip
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF")
"""What Pillow decodes itself: no format that starts another program or follows addresses."""

MAX_PIXELS = 50_000_000
"""Of a picture, checked before it is decoded: a small file may claim to be huge."""

MAX_SIDE = 4096
"""Of an image that a picture is brought to."""

_MAX_SIDE = 512
_LEAST_CONTRAST = 32
_NOISE = 20  # of 255; the noise that JPEG leaves around a stroke
_BOX_SHARE = 20 / 28
_MAX_FRAME = 0.06
"""Of the side of an image: how far in a thin frame may lie."""
_LINE_SHARE = 0.9
"""Of the pixels of a row that is a line; beside it, a margin may be left."""
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")


class BadImageError(ValueError):
    """A file without a usable image. The message is the reason."""


class Invert(enum.Enum):
    """Whether to invert dark strokes on a bright ground to MNIST's bright strokes on black."""

    auto = "auto"
    yes = "yes"
    no = "no"


Fit = Literal["resize", "crop", "pad", "digit"]
FITS: tuple[Fit, ...] = ("resize", "crop", "pad", "digit")


@dataclass(frozen=True)
class Form:
    """How pictures become the images of a data set.

    Attributes:
        image_size: Height and width in pixels; None: as it is.
        color: Grey or red, green and blue.
        fit: How a picture of another size is brought to `image_size`: `resize` changes its proportions, `crop` cuts
            what sticks out on two sides, `pad` adds black there, and `digit` does as MNIST does, see `fit_digit`.
    """

    image_size: tuple[int, int] | None = None
    color: Literal["grey", "rgb"] = "rgb"
    fit: Fit = "resize"

    def __post_init__(self) -> None:
        if self.image_size is not None and not all(1 <= side <= MAX_SIDE for side in self.image_size):
            raise ValueError(f"image_size={list(self.image_size)}: expected a height and a width from 1 to {MAX_SIDE}")


def fit_picture(
    picture: Path | str | bytes,
    *,
    image_size: tuple[int, int] | None = None,
    color: Literal["grey", "rgb"] = "rgb",
    fit: Fit = "resize",
) -> npt.NDArray[np.uint8]:
    """Return a picture as an image, made as `data=folder` makes the images that a model is trained on.

    A photograph is rotated as its EXIF data says, transparent pixels become white, 16 bits become 8, and of an
    animation the first picture is taken.

    Args:
        picture: A file, or the bytes of one.
        image_size: See `Form`.
        color: See `Form`.
        fit: See `Form`.

    Returns:
        uint8 (height, width), or (height, width, 3) for `rgb`.

    Raises:
        ValueError: It is not a picture, damaged, too large, or, for `digit`, without contrast.
    """
    return make_image(picture, Form(image_size, color, fit))


def make_image(picture: Path | str | bytes, form: Form) -> npt.NDArray[np.uint8]:
    """Return a picture as an image of a form, see `fit_picture`.

    Raises:
        BadImageError: It cannot be used.
    """
    if form.fit == "digit":
        size = form.image_size or (28, 28)
        return fit_digit(read_grey(picture), image_shape=size, invert=Invert.auto)
    mode = "L" if form.color == "grey" else "RGB"
    with _opened(picture) as image:
        if form.image_size is not None:
            height, width = form.image_size
            image.draft(mode, (width, height))  # JPEG can be decoded smaller
        plain = _opaque(_upright(image)).convert(mode)
        return np.asarray(plain if form.image_size is None else _to_size(plain, form))


def _to_size(image: Image.Image, form: Form) -> Image.Image:
    assert form.image_size is not None
    height, width = form.image_size
    if image.size == (width, height):
        return image
    match form.fit:
        case "crop":
            return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        case "pad":
            return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=0)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def read_grey(picture: Path | str | bytes) -> npt.NDArray[np.uint8]:
    """Return the grey values uint8 (height, width) of a picture, at most 512 pixels on its longer side.

    Raises:
        BadImageError: It is damaged, too large, or not a picture.
    """
    with _opened(picture) as image:
        image.draft("L", (_MAX_SIDE, _MAX_SIDE))  # JPEG can be decoded smaller
        return _to_grey(_upright(image))


@contextmanager
def _opened(picture: Path | str | bytes) -> Iterator[Image.Image]:
    """Yield the picture; whatever its decoder raises becomes a BadImageError."""
    try:
        source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
        with warnings.catch_warnings(), Image.open(source, formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # of large pictures (MAX_PIXELS is stricter) and of damaged EXIF
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"{image.width}x{image.height} pixels are too many: at most {MAX_PIXELS:,}")
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("it is not a picture in a known format") from error
    except Exception as error:  # a decoder may raise anything for a hostile file
        raise BadImageError(describe_damage(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are fine; only the metadata is damaged
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """Return the picture with 8 bits a channel, and white where it was transparent."""
    if image.mode.startswith(("I", "F")):  # 16 bits, or floats
        values = np.asarray(image).astype(np.float64)
        scale = 255 if image.mode == "F" and values.max(initial=0) <= 1 else 1 if image.mode == "F" else 255 / 65535
        image = Image.fromarray(np.rint(values * scale).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _to_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):  # of 16 bits, a camera may use 12: only differences count here
        values = np.asarray(image).astype(np.float64)
        spread = max(float(np.ptp(values)), 1e-9)
        image = Image.fromarray(np.rint((values - values.min()) * (255 / spread)).clip(0, 255).astype(np.uint8))
    opaque = _opaque(image)
    if image.has_transparency_data:
        lowest, highest = opaque.convert("L").getextrema()
        if lowest == highest:  # white strokes on a transparent ground show only in the alpha channel
            opaque = image.convert("RGBA").getchannel("A")
    grey = opaque.convert("L")
    grey.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BOX)
    return np.asarray(grey)


def is_bright(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return for images uint8 (n, height, width) whether their ground, as seen at the edges, is bright."""
    edges = (grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1])
    bright: npt.NDArray[np.bool_] = np.median(np.concatenate(edges, axis=1), axis=1) > 127
    return bright


def fit_digit(grey: npt.NDArray[np.uint8], *, image_shape: tuple[int, int], invert: Invert) -> npt.NDArray[np.uint8]:
    """Return an image fitted as MNIST's images were (LeCun, Bottou, Bengio and Haffner, 1998, section III.A).

    The digit is scaled to a box of 20x20 of the 28x28 pixels, with its proportions kept, and its centre of mass is
    moved to the centre of the image. An MNIST image does not change, except for its faintest pixels. In a picture,
    `handwriting.py` finds the digit.

    Args:
        grey: uint8 (height, width).
        image_shape: Height and width of the model's images.
        invert: Whether the strokes are dark on a bright ground.

    Raises:
        BadImageError: It has too little contrast, or shows several digits.
    """
    from mnist_pipeline.data import handwriting  # here, because only digits need it, and because it uses this module

    grey = _cut_frame(grey)
    ink = (
        _find_ink(grey, invert)
        if min(grey.shape) < handwriting.LEAST_SIDE
        else handwriting.find_ink(grey, invert=invert)
    )
    ink *= 255 / ink.max()
    digit = _crop(ink)
    box = round(_BOX_SHARE * min(image_shape))
    longer = max(digit.shape)
    if longer != box:
        height, width = (max(1, round(size * box / longer)) for size in digit.shape)
        resized = Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS)
        digit = np.asarray(resized).clip(0, None)
        digit = digit * (255 / digit.max())
    return _place(np.round(digit).astype(np.uint8), image_shape)


def _find_ink(grey: npt.NDArray[np.uint8], invert: Invert) -> npt.NDArray[np.float64]:
    """Return how far each pixel of a small image differs from its even ground, without noise."""
    dark_strokes = bool(is_bright(grey[None])[0]) if invert is Invert.auto else invert is Invert.yes
    values = 255 - grey.astype(np.int16) if dark_strokes else grey.astype(np.int16)
    edges = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ground = np.median(edges)
    ink: npt.NDArray[np.float64] = np.clip(values - ground, 0, None).astype(np.float64)
    # Variation along the edges is noise. The median estimates its standard deviation even if a stroke crosses the edge.
    noise = max(_NOISE / 255 * ink.max(), 6 * 1.4826 * float(np.median(np.abs(edges - ground))))
    if ink.max() < max(_LEAST_CONTRAST, 1.5 * noise):
        raise BadImageError("no digit can be seen in it: too little contrast")
    ink[ink < noise] = 0
    return ink


def _cut_frame(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what is inside a frame: of a line along each of the four sides, close to the edge, that is of one grey."""
    cuts = [_find_line(lines) for lines in (grey, grey[::-1], grey.T, grey.T[::-1])]
    if 0 in cuts:
        return grey
    top, bottom, left, right = cuts
    return grey[top : len(grey) - bottom, left : grey.shape[1] - right]


def _find_line(rows: npt.NDArray[np.uint8]) -> int:
    """Return the number of rows down to, and one beyond, the last line near the first row; 0 if there is none.

    A line is a row of one grey that differs from the ground behind it. The row beyond may be blended with it.
    """
    depth = max(2, round(_MAX_FRAME * len(rows)))
    if len(rows) < 4 * depth:
        return 0
    greys = np.median(rows[: depth + 1], axis=1, keepdims=True)
    is_uniform = (np.abs(rows[: depth + 1] - greys) < _LEAST_CONTRAST).mean(axis=1) > _LINE_SHARE
    is_line = is_uniform & (np.abs(greys[:, 0] - greys[depth]) > 2 * _LEAST_CONTRAST)
    return int(np.flatnonzero(is_line)[-1]) + 2 if is_line.any() else 0


def _crop(ink: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows, columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(digit: npt.NDArray[np.uint8], image_shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    placed = np.zeros(image_shape, np.uint8)
    corner = []
    for axis, size in enumerate(image_shape):
        mass = digit.sum(axis=1 - axis, dtype=np.float64)
        centre = float((mass * np.arange(len(mass))).sum() / mass.sum())
        corner.append(min(max(round(size / 2 - centre), 0), size - digit.shape[axis]))
    top, left = corner
    placed[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return placed


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is none of the user's: hidden, or made by a file manager."""
    return name.startswith(".") or name.lower() in _IGNORED


def describe_damage(error: Exception) -> str:
    """Return the message of a decoder, shortened to one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
