"""The four arrays of the real MNIST, found on disk or downloaded, and verified."""

import gzip
import hashlib
import logging
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch

from mnist_pipeline.config.sections import MnistConfig
from mnist_pipeline.data.dataset import Arrays, Attempt
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.files import move
from mnist_pipeline.system.secrets import Address, hide

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
_IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


_UNREADABLE = (OSError, MemoryError)  # the file may be complete: it is not renamed


_CONNECT_TIMEOUT_SEC = 5.0
_LARGEST_IDX_BYTES = 64 * 2**20  # the largest of the four has 47 MB; a gzip bomb could unfold to any size


_log = logging.getLogger(__name__)


class DamagedError(ValueError):
    """A file does not hold the MNIST array that it should hold."""

    def __init__(self, message: str, *damaged: Path) -> None:
        self.files = damaged
        super().__init__(message)


class MnistUnavailableError(UserError):
    """No source has MNIST."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.attempts = attempts
        tried = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)
        super().__init__(
            f"data=mnist is not available ({tried}): put mnist.npz or the four IDX files into a folder and set "
            "MNIST_PIPELINE_DATA_DIR to it, or use data=digits"
        )


def find(config: MnistConfig, *, home: Path) -> tuple[Arrays, list[Attempt]]:
    """Return MNIST from the first source that has it complete.

    The sources, in order: the folder `MNIST_PIPELINE_DATA_DIR`, `<home>/data/`, Keras's cache, then the two mirrors
    of `config`. Damaged files in the two caches are renamed; the
    user's own folder is left alone.

    Args:
        config: The mirrors and how retry they are asked.
        home: The folder whose `data/` receives a download.

    Returns:
        The arrays, all uint8: `x_train` (60000, 28, 28), `y_train` (60000,), `x_test` (10000, 28, 28) and `y_test`
        (10000,). And every source that was tried; the last one provided the arrays.

    Raises:
        MnistUnavailableError: No source has it.
    """
    attempts: list[Attempt] = []
    for source, attempt in _sources(config, home):
        try:
            arrays = attempt()
        except (OSError, ValueError) as error:
            attempts.append(Attempt(source, _one_line(error)))
            continue
        if arrays is not None:
            attempts.append(Attempt(source, "found"))
            return arrays, attempts
        attempts.append(Attempt(source, "not there"))
    raise MnistUnavailableError(attempts)


def _sources(config: MnistConfig, home: Path) -> Iterator[tuple[str, Callable[[], Arrays | None]]]:
    own = os.environ.get("MNIST_PIPELINE_DATA_DIR")
    if own:
        yield f"MNIST_PIPELINE_DATA_DIR ({own})", lambda: _load_folder(paths.expand(own), is_cache=False)
    data_dir = home / "data"
    yield str(data_dir), lambda: _load_folder(data_dir, is_cache=True)
    keras_dir = paths.expand(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets"
    yield str(keras_dir), lambda: _load_folder(keras_dir, is_cache=True)
    yield str(config.npz_url), lambda: _download({_NPZ_NAME: config.npz_url}, config, into=data_dir)
    idx_files = {f"{name}.gz": config.idx_url.join(f"{name}.gz") for name in _IDX_NAMES.values()}
    yield str(config.idx_url), lambda: _download(idx_files, config, into=data_dir)


def _one_line(error: BaseException) -> str:
    # Network libraries wrap the message of the operating system three times.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = hide(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _load_folder(folder: Path, *, is_cache: bool) -> Arrays | None:
    """Return the arrays from either format in `folder`; None if it holds neither.

    Raises:
        DamagedError: It holds one, but the file is damaged.
    """
    damaged: DamagedError | None = None
    for files, read in ((_npz_files(folder), _read_npz), (_idx_files(folder), _read_idx)):
        if not files:
            continue
        try:
            return _verified(read(files), files)
        except DamagedError as error:
            damaged = error
            _log.warning("damaged data in %s: %s", folder, error)
            for path in error.files if is_cache else ():
                _set_aside(path)
    if damaged:
        raise damaged
    return None


def _npz_files(folder: Path) -> dict[str, Path]:
    path = folder / _NPZ_NAME
    return {"npz": path} if path.is_file() else {}


def _idx_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for array, name in _IDX_NAMES.items():
        for spelling in (name, name.replace("-idx", ".idx")):
            for path in (folder / spelling, folder / f"{spelling}.gz"):
                if path.is_file():
                    found.setdefault(array, path)
    return found


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        _log.warning("set aside as %s", aside)
    except OSError as error:
        _log.warning("%s could not be set aside: %s", path, error.strerror)


def _read_npz(files: dict[str, Path]) -> Arrays:
    path = files["npz"]
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise DamagedError(f"{path.name} is not an NPZ archive", path)
            with loaded:
                return {name: loaded[name] for name in DIGESTS}
    except DamagedError:
        raise
    except _UNREADABLE as error:
        raise DamagedError(f"{path.name} cannot be read now: {_one_line(error)}") from error
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedError(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def _read_idx(files: dict[str, Path]) -> Arrays:
    missing = [name for array, name in _IDX_NAMES.items() if array not in files]
    if missing:
        raise DamagedError(f"incomplete: {' and '.join(missing)} missing")
    return {array: _read_idx_file(path) for array, path in files.items()}


def _read_idx_file(path: Path) -> npt.NDArray[np.uint8]:
    """Read IDX: two zero bytes, the type (8: uint8), the number of axes, their big-endian sizes, the data."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST_IDX_BYTES)
        zeros, kind, num_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{num_axes}I", content[4 : 4 + 4 * num_axes])
        if (zeros, kind) != (0, 8):
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)
    except (gzip.BadGzipFile, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DamagedError(f"{path.name} cannot be read: {_one_line(error)}", path) from error
    except _UNREADABLE as error:
        raise DamagedError(f"{path.name} cannot be read now: {_one_line(error)}") from error


def _verified(arrays: Arrays, files: dict[str, Path]) -> Arrays:
    for name, expected in DIGESTS.items():
        array = arrays[name]
        found = hashlib.sha256(array.tobytes()).hexdigest()
        if found != expected or array.dtype != np.uint8 or array.shape != SHAPES[name]:
            raise DamagedError(
                f"{name} is {array.dtype} {array.shape} with SHA-256 {found[:12]}..., not MNIST's {expected[:12]}...",
                files.get(name) or files["npz"],
            )
    return arrays


def _download(files: Mapping[str, Address], config: MnistConfig, *, into: Path) -> Arrays:
    """Download the files, verify the arrays in them, and only then move them into the folder.

    Args:
        files: The address of each file, by its name.
        config: How retry they are asked for.
        into: The folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=into, prefix=".download-") as folder:
        for name, address in files.items():
            _log.info("downloading %s", address)
            url, credentials = address.connection()
            mirror = pooch.create(
                path=folder,
                base_url="",
                registry={name: None},
                urls={name: url},
                retry_if_failed=config.num_retries,
            )
            mirror.fetch(
                name,
                downloader=pooch.HTTPDownloader(
                    progressbar=sys.stderr.isatty(),
                    timeout=(_CONNECT_TIMEOUT_SEC, config.timeout_sec),
                    auth=credentials,
                ),
            )
        downloaded = Path(folder)
        found = _npz_files(downloaded) or _idx_files(downloaded)
        arrays = _verified(_read_npz(found) if "npz" in found else _read_idx(found), found)
        for path in downloaded.iterdir():
            move(path, into / path.name)
    return arrays
