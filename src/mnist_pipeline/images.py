"""Images from files, brought into the form of MNIST's. What a file holds is believed only after it was looked at."""

import enum
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

PICTURES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npz",)
MAX_PIXELS = 50_000_000
"""Of a picture, before it is decoded: a small file may claim to be a huge picture."""

_CHUNK = 1024
_MAX_SIDE = 512
_LEAST_CONTRAST = 32
_NOISE = 20  # of 255; what JPEG leaves around a stroke
_BOX_SHARE = 20 / 28
# What the decoders of pictures and of NumPy's files raise for a damaged or hostile one.
_DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError),
    *(RuntimeError, NotImplementedError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError),
)


class BadImageError(Exception):
    """A file that holds no image that can be used. The message is the reason."""


class Invert(enum.Enum):
    """Whether dark strokes on a bright ground become MNIST's bright strokes on black."""

    auto = "auto"
    yes = "yes"
    no = "no"


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Return the grey values uint8 (height, width) of a PNG or JPEG file, at most 512 pixels on its longer side.

    What is transparent becomes white, a photograph is turned as its camera was held.

    Raises:
        BadImageError: It is damaged, too large, or something else.
    """
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"{image.width}x{image.height} pixels are too many: at most {MAX_PIXELS:,}")
            image.draft("L", (_MAX_SIDE, _MAX_SIDE))  # JPEG can be decoded smaller
            return _to_grey(ImageOps.exif_transpose(image))
    except _DECODING_ERRORS as error:
        raise BadImageError(_reason(error)) from error


def _to_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L")
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def read_arrays(path: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield the grey images of an NPZ file in chunks: the array's name, and uint8 (n, height, width).

    Arrays with one axis, such as labels, are passed over. No array is in memory as a whole.

    Raises:
        BadImageError: The file is damaged or holds pickles, an array's pixels are no whole numbers of 0..255, or it has
            no images. Nothing is yielded of an array that is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            headers = [_check_member(archive, info) for info in members]
            if not any(len(shape) > 1 for shape, _ in headers):
                raise BadImageError("it has no array of images: expected uint8 (n, height, width)")
            for info, (shape, _) in zip(members, headers, strict=True):
                if len(shape) > 1:
                    with archive.open(info) as member:
                        yield from _read_chunks(member, info.filename.removesuffix(".npy"))
    except _DECODING_ERRORS as error:
        raise BadImageError(_reason(error)) from error


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Look at an array's header, and read it once to its end: that checks its length, its CRC and its range."""
    with archive.open(info) as member:
        shape, dtype = _read_header(member)
        name = info.filename.removesuffix(".npy")
        num_bytes = 0
        if len(shape) > 1:
            if dtype.kind not in "bui":
                advice = "multiply by 255, round, and store as uint8" if dtype.kind == "f" else "store them as uint8"
                raise BadImageError(f"{name} has pixels of type {dtype}, not whole numbers of 0..255: {advice}")
            _image_shape(shape, name)
        while block := member.read(1 << 20):
            num_bytes += len(block)
            if len(shape) > 1 and dtype.kind in "iu" and dtype != np.uint8 and len(block) % dtype.itemsize == 0:
                _require_range(np.frombuffer(block, dtype), name)
    expected = int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
    if num_bytes != expected:
        raise BadImageError(f"{name} has {num_bytes:,} bytes where its header announces {expected:,}")
    return shape, dtype


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise BadImageError(f"an array in NumPy's format {version}, which no image needs")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(member)
    if dtype.hasobject:
        raise BadImageError("it holds pickled objects, which are never loaded")
    if is_fortran and len(shape) > 1:
        raise BadImageError("an array in Fortran's order: store it with numpy.ascontiguousarray")
    return shape, dtype


def _image_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the shape of one image of an array: (height, width), or with a channel axis of 1 or 3."""
    is_one = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3) and shape[0] > 4)
    one = tuple(shape) if is_one else tuple(shape[1:])
    if len(one) not in (2, 3) or (len(one) == 3 and one[-1] not in (1, 3)) or 0 in one:
        raise BadImageError(
            f"{name} has the shape {tuple(shape)}: expected (n, height, width) or (n, height, width, 3)"
        )
    if one[0] * one[1] > MAX_PIXELS:
        raise BadImageError(f"{name}: {one[1]}x{one[0]} pixels are too many: at most {MAX_PIXELS:,}")
    return one


def _read_chunks(member: IO[bytes], name: str) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    shape, dtype = _read_header(member)
    one = _image_shape(shape, name)
    num_images = 1 if one == tuple(shape) else shape[0]
    num_bytes = int(np.prod(one)) * dtype.itemsize
    step = max(1, min(_CHUNK, (64 << 20) // num_bytes))
    for start in range(0, num_images, step):
        count = min(step, num_images - start)
        pixels = np.frombuffer(member.read(count * num_bytes), dtype).reshape(count, *one)
        yield name, _as_grey(pixels)


def _require_range(pixels: npt.NDArray[Any], name: str) -> None:
    if pixels.min() < 0 or pixels.max() > 255:
        raise BadImageError(f"{name} has pixels of {pixels.min()}..{pixels.max()}: expected 0..255")


def _as_grey(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    pixels = pixels.astype(np.uint8, copy=False)
    if pixels.ndim == 3:
        return pixels
    if pixels.shape[-1] == 1:
        return pixels[..., 0]
    # The weights of ITU-R 601, as in Pillow.
    grey: npt.NDArray[np.uint8] = np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return grey


def is_bright(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return of images uint8 (n, height, width) whether their ground, which is at their edges, is bright."""
    edges = (grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1])
    bright: npt.NDArray[np.bool_] = np.median(np.concatenate(edges, axis=1), axis=1) > 127
    return bright


def fit(grey: npt.NDArray[np.uint8], *, image_shape: tuple[int, int], invert: Invert) -> npt.NDArray[np.uint8]:
    """Return an image as MNIST's were made (LeCun, Bottou, Bengio and Haffner, 1998, section III.A).

    The digit is brought into a box of 20x20 of the 28x28 pixels with its proportions kept, and its centre of mass into
    the centre of the image. An image of MNIST stays what it is, but for its faintest pixels.

    Args:
        grey: uint8 (height, width).
        image_shape: Height and width of the model's images.
        invert: Whether the strokes are dark on a bright ground.

    Raises:
        BadImageError: There is hardly any contrast in it.
    """
    dark_strokes = bool(is_bright(grey[None])[0]) if invert is Invert.auto else invert is Invert.yes
    values = 255 - grey.astype(np.int16) if dark_strokes else grey.astype(np.int16)
    edges = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ground = np.median(edges)
    ink = np.clip(values - ground, 0, None).astype(np.float64)
    # What varies along the edges is noise: its standard deviation by the median, which a stroke does not disturb.
    noise = max(_NOISE / 255 * ink.max(), 6 * 1.4826 * float(np.median(np.abs(edges - ground))))
    if ink.max() < max(_LEAST_CONTRAST, 1.5 * noise):
        raise BadImageError("no digit is to be seen in it: hardly any contrast")
    ink[ink < noise] = 0
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


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is neither a PNG nor a JPEG"
    return " ".join(str(error).split())[:200] or type(error).__name__
