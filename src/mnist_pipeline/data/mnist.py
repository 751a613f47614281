"""`data=mnist`: the real MNIST, in any file format, known by the digests of its four arrays."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mnist_pipeline.data import published
from mnist_pipeline.data.dataset import Images
from mnist_pipeline.data.published import UNREADABLE, Arrays, DamagedError, Mirror, Published, one_line
from mnist_pipeline.system.secrets import Address

DIGESTS = {
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
"""SHA-256 of the bytes of each array (C order, uint8, no header), in any file format."""


SHAPES: dict[str, tuple[int, ...]] = {
    "x_train": (60_000, 28, 28),
    "y_train": (60_000,),
    "x_test": (10_000, 28, 28),
    "y_test": (10_000,),
}

_NPZ_NAME = "mnist.npz"


def load(*, npz_url: Address, idx_url: Address, timeout_sec: float, num_retries: int) -> Images:
    """Return MNIST (LeCun, Cortes and Burges, 1998): uint8 (60000, 28, 28), and (10000, 28, 28) for the test.

    Args:
        npz_url: Mirror of `mnist.npz` in Keras's layout.
        idx_url: Mirror of the four gzipped IDX files: the folder's address.
        timeout_sec: Seconds without an answer after which a download fails.
        num_retries: Further attempts per file before the next mirror is tried.

    Raises:
        DataUnavailableError: No source has it.
        ValueError: An argument is wrong.
    """
    for key, url in (("npz_url", npz_url), ("idx_url", idx_url)):
        if not url.is_server:
            raise ValueError(f"data.{key}={url}: expected an http:// or https:// address")
    mirrors = [
        Mirror(str(npz_url), {_NPZ_NAME: npz_url}),
        Mirror(str(idx_url), {f"{name}.gz": idx_url.join(f"{name}.gz") for name in published.IDX_NAMES.values()}),
    ]
    return published.load(MNIST, mirrors, timeout_sec=timeout_sec, num_retries=num_retries)


def read_npz(folder: Path) -> Arrays | None:
    """Return MNIST from `mnist.npz` in a folder; None if there is no such file.

    Raises:
        DamagedError: It is damaged.
    """
    path = folder / _NPZ_NAME
    return _verified(_read_npz(path), dict.fromkeys(DIGESTS, path)) if path.is_file() else None


def read_idx(folder: Path) -> Arrays | None:
    """Return MNIST from the four IDX files in a folder; None if it has none of them.

    Raises:
        DamagedError: One is missing or damaged.
    """
    found = published.read_idx_files(folder)
    return None if found is None else _verified(*found)


def _read_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise DamagedError(f"{path.name} is not an NPZ archive", path)
            with loaded:
                return {name: loaded[name] for name in DIGESTS}
    except DamagedError:
        raise
    except UNREADABLE as error:
        raise DamagedError(f"{path.name} cannot be read now: {one_line(error)}") from error
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedError(f"{path.name} cannot be read: {one_line(error)}", path) from error


def _verified(arrays: Arrays, files: dict[str, Path]) -> Arrays:
    for name, expected in DIGESTS.items():
        array = arrays[name]
        found = hashlib.sha256(array.tobytes()).hexdigest()
        if found != expected or array.dtype != np.uint8 or array.shape != SHAPES[name]:
            raise DamagedError(
                f"{name} is {array.dtype} {array.shape} with SHA-256 {found[:12]}..., not MNIST's {expected[:12]}...",
                files[name],
            )
    return arrays


MNIST = Published(
    "mnist", ("", "MNIST/raw", "raw", "MNIST", "mnist"), (read_npz, read_idx), "mnist.npz or the four IDX files"
)
