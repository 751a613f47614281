"""Images from NPZ files, one chunk at a time. A file's headers are checked before they are trusted."""

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.checking import CHANNELS
from mnist_pipeline.data.pictures import BadImageError, describe_damage

SUFFIXES = (".npz",)
MAX_PIXELS = 4_000_000
"""Of one image of an array; several are in memory at a time."""

_CHUNK = 1024
_BLOCK_BYTES = 1 << 20  # a multiple of the size of every number


def read_arrays(
    path: Path, on_bad: Callable[[str, str], None], *, is_grey: bool = True
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield the images of an NPZ file in chunks: the array's name, and uint8 (n, height, width[, channels]).

    Arrays with one axis, such as labels, are skipped. No array is ever in memory as a whole, and a damaged array yields
    nothing. Floats from 0 to 1 are multiplied by 255, and floats up to 255 are only rounded.

    Args:
        path: The file.
        on_bad: Called with the name of each array that cannot be used, and the reason.
        is_grey: Whether images in colour are made grey.

    Raises:
        BadImageError: The file is not an NPZ archive, or has no array of images.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays that Python 2 wrote
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            num_arrays = 0
            for info in members:
                name = info.filename.removesuffix(".npy")
                try:
                    factor = _check_member(archive, info)
                except Exception as error:  # a hostile member may raise anything
                    num_arrays += 1
                    on_bad(name, describe_damage(error))
                    continue
                if factor:
                    num_arrays += 1
                    with archive.open(info) as member:
                        for pixels in _read_chunks(member):
                            as_bytes = _as_bytes(pixels, factor)
                            yield name, _as_grey(as_bytes) if is_grey else as_bytes
            if num_arrays == 0:
                raise BadImageError("it has no array of images: expected uint8 (n, height, width)")
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise BadImageError(describe_damage(error)) from error


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Return what brings a member's pixels to 0..255: 1 or 255; 0 if it holds no images.

    It is read once completely, which checks its length, CRC and range.

    Raises:
        BadImageError: It cannot be used.
    """
    with archive.open(info) as member:
        shape, dtype = _read_header(member)
        if len(shape) < 2:
            return 0
        _split_shape(shape)
        if dtype.kind not in "buif":
            raise BadImageError(f"its pixels are of type {dtype}: expected numbers from 0 to 255")
        num_bytes, highest = 0, 0.0
        while block := member.read(_BLOCK_BYTES):
            num_bytes += len(block)
            pixels = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
            _require_range(pixels)
            highest = max(highest, float(pixels.max(initial=0)))
    expected = math.prod(shape) * dtype.itemsize
    if num_bytes != expected:
        raise BadImageError(f"it has {num_bytes:,} bytes, but its header announces {expected:,}")
    return 255 if dtype.kind == "b" or (dtype.kind == "f" and highest <= 1) else 1


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise BadImageError(f"it is in NumPy format {version}: expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(member)
    if len(shape) > 1 and dtype.hasobject:
        raise BadImageError("it holds pickled objects, which are never loaded")
    if len(shape) > 1 and is_fortran:
        raise BadImageError("it is in Fortran order: store it with numpy.ascontiguousarray")
    return shape, dtype


def _split_shape(shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Return the number of images of an array, and the shape of one: (height, width), or with a channel axis."""
    num_images, one = shape[0], tuple(shape[1:])
    is_grey = len(one) == 2 and one[-1] not in CHANNELS  # (height, width, 3) would be one picture
    if not (is_grey or (len(one) == 3 and one[-1] in CHANNELS)):
        raise BadImageError(
            f"its shape is {tuple(shape)}: expected (n, height, width) or (n, height, width, 3); reshape it, a single "
            "image with array[None]"
        )
    if min(shape) < 1:
        raise BadImageError(f"its shape is {tuple(shape)}: it has no images")
    if one[0] * one[1] > MAX_PIXELS:
        raise BadImageError(f"{one[1]}x{one[0]} pixels are too many: at most {MAX_PIXELS:,}")
    return num_images, one


def _read_chunks(member: IO[bytes]) -> Iterator[npt.NDArray[Any]]:
    shape, dtype = _read_header(member)
    num_images, one = _split_shape(shape)
    num_bytes = math.prod(one) * dtype.itemsize
    step = max(1, min(_CHUNK, (64 << 20) // num_bytes))
    for start in range(0, num_images, step):
        count = min(step, num_images - start)
        yield np.frombuffer(member.read(count * num_bytes), dtype).reshape(count, *one)


def _require_range(pixels: npt.NDArray[Any]) -> None:
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 255):  # false for NaN too
        raise BadImageError(f"its pixels range from {pixels.min()} to {pixels.max()}: expected 0 to 255")


def _as_bytes(pixels: npt.NDArray[Any], factor: int) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(pixels.astype(np.float64) * factor).astype(np.uint8)


def _as_grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if pixels.ndim == 3:
        return pixels
    if pixels.shape[-1] == 1:
        return pixels[..., 0]
    # The weights of ITU-R 601, as in Pillow.
    grey: npt.NDArray[np.uint8] = np.round(pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)).astype(
        np.uint8
    )
    return grey
