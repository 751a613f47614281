"""Data sets that are published on the web: found on this machine or downloaded, verified, and kept."""

import gzip
import hashlib
import itertools
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch

from mnist_pipeline.data import idx
from mnist_pipeline.data.dataset import Attempt, DataUnavailableError, Images
from mnist_pipeline.system import paths
from mnist_pipeline.system.files import move
from mnist_pipeline.system.secrets import Address, hide

Arrays = dict[str, npt.NDArray[np.uint8]]
"""`x_train`, `y_train`, `x_test` and `y_test`."""

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

UNREADABLE = (OSError, MemoryError)
"""Errors of files that may be complete, and are not renamed."""

_CONNECT_TIMEOUT_SEC = 5.0

_log = logging.getLogger(__name__)


class DamagedError(ValueError):
    """Files do not hold the data that they should hold.

    Attributes:
        files: The ones that are damaged.
    """

    def __init__(self, message: str, *damaged: Path) -> None:
        self.files = damaged
        super().__init__(message)


@dataclass(frozen=True)
class Published:
    """A data set that is published.

    Attributes:
        option: Its name in `data=`.
        folders: Where it may lie below a folder of data; the first receives a download.
        readers: One for each format: it returns the verified arrays in a folder, None if the folder has none of the
            files, and raises DamagedError.
        files: The files to put there, for messages.
    """

    option: str
    folders: tuple[str, ...]
    readers: tuple[Callable[[Path], Arrays | None], ...]
    files: str


@dataclass(frozen=True)
class Mirror:
    """Where files can be downloaded: the address of each, by its name."""

    name: str
    files: Mapping[str, Address]


def load(
    published: Published,
    mirrors: Sequence[Mirror],
    *,
    timeout_sec: float,
    num_retries: int,
    class_names: Sequence[str] | None = None,
) -> Images:
    """Return a published data set from the first source that has it complete.

    The sources, in order: the folder `MNIST_PIPELINE_DATA_DIR`, `<home>/data/`, Keras's cache, then the mirrors.
    Damaged files in the two caches are renamed; the user's own folder is left alone.

    Raises:
        DataUnavailableError: No source has it.
        ValueError: A number is out of range.
    """
    if not 0 < timeout_sec <= 3600:
        raise ValueError(f"data.timeout_sec={timeout_sec}: expected a number of seconds above 0, at most 3600")
    if not 0 <= num_retries <= 100:
        raise ValueError(f"data.num_retries={num_retries}: expected an integer from 0 to 100")
    attempts: list[Attempt] = []
    into = paths.home() / "data" / published.folders[0]
    download = _Download(published, timeout_sec, num_retries, into)
    for source, attempt in [*_local_sources(published), *((one.name, download.bind(one)) for one in mirrors)]:
        try:
            arrays = attempt()
        except (OSError, ValueError) as error:
            attempts.append(Attempt(source, one_line(error)))
            continue
        attempts.append(Attempt(source, "not there" if arrays is None else "found"))
        if arrays is not None:
            return Images(
                images={"train": arrays["x_train"], "test": arrays["x_test"]},
                labels={"train": arrays["y_train"], "test": arrays["y_test"]},
                class_names=class_names,
                attempts=attempts,
            )
    tried = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)
    raise DataUnavailableError(
        f"data={published.option} is not available ({tried}): put {published.files} into a folder and set "
        "MNIST_PIPELINE_DATA_DIR to it, or use data=digits",
        attempts,
    )


def _local_sources(published: Published) -> Iterator[tuple[str, Callable[[], Arrays | None]]]:
    own = os.environ.get("MNIST_PIPELINE_DATA_DIR")
    if own:
        yield f"MNIST_PIPELINE_DATA_DIR ({own})", lambda: _search(published, paths.expand(own), is_cache=False)
    data_dir = paths.home() / "data"
    yield str(data_dir), lambda: _search(published, data_dir, is_cache=True)
    keras_dir = paths.expand(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets"
    yield str(keras_dir), lambda: _search(published, keras_dir, is_cache=True)


def _search(published: Published, folder: Path, *, is_cache: bool) -> Arrays | None:
    """Return the arrays from the first of the folders and formats that has them; None if there are no files at all.

    Raises:
        DamagedError: There are files, but they are damaged.
    """
    damaged: DamagedError | None = None
    for place, read in itertools.product((folder / name for name in published.folders), published.readers):
        try:
            arrays = read(place)
        except DamagedError as error:
            damaged = error
            _log.warning("damaged data in %s: %s", place, error)
            for path in error.files if is_cache else ():
                _set_aside(path)
            continue
        if arrays is not None:
            return arrays
    if damaged:
        raise damaged
    return None


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        _log.warning("set aside as %s", aside)
    except OSError as error:
        _log.warning("%s could not be set aside: %s", path, error.strerror)


@dataclass(frozen=True)
class _Download:
    published: Published
    timeout_sec: float
    num_retries: int
    into: Path

    def bind(self, mirror: Mirror) -> Callable[[], Arrays | None]:
        return lambda: self._download(mirror)

    def _download(self, mirror: Mirror) -> Arrays | None:
        """Download the files, verify the arrays in them, and only then move them into the folder."""
        self.into.mkdir(parents=True, exist_ok=True)
        pooch.get_logger().setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(dir=self.into, prefix=".download-") as folder:
            for name, address in mirror.files.items():
                self._fetch(name, address, folder)
            found = [arrays for read in self.published.readers if (arrays := read(Path(folder))) is not None]
            for path in Path(folder).iterdir():
                move(path, self.into / path.name)
        return found[0]

    def _fetch(self, name: str, address: Address, folder: str) -> None:
        _log.info("downloading %s", address)
        url, credentials = address.connection()
        pooch.create(
            path=folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=self.num_retries
        ).fetch(
            name,
            downloader=pooch.HTTPDownloader(
                progressbar=sys.stderr.isatty(), timeout=(_CONNECT_TIMEOUT_SEC, self.timeout_sec), auth=credentials
            ),
        )


def read_idx_files(folder: Path) -> tuple[Arrays, dict[str, Path]] | None:
    """Return the four arrays of IDX files, and the files; None if the folder has none of them.

    Raises:
        DamagedError: One is missing, or cannot be read.
    """
    files: dict[str, Path] = {}
    for array, name in IDX_NAMES.items():
        for spelling in (name, name.replace("-idx", ".idx")):
            # Kaggle's archive has a folder around each file.
            for place in (folder, folder / spelling, folder / name):
                for path in (place / spelling, place / f"{spelling}.gz"):
                    if path.is_file():
                        files.setdefault(array, path)
    if not files:
        return None
    missing = [name for array, name in IDX_NAMES.items() if array not in files]
    if missing:
        raise DamagedError(f"incomplete: {' and '.join(missing)} missing")
    return {array: _read_idx_file(path) for array, path in files.items()}, files


def _read_idx_file(path: Path) -> npt.NDArray[np.uint8]:
    try:
        array = idx.read_file(path)
    except UNREADABLE as error:
        if isinstance(error, gzip.BadGzipFile):
            raise DamagedError(f"{path.name} cannot be read: {one_line(error)}", path) from error
        raise DamagedError(f"{path.name} cannot be read now: {one_line(error)}") from error
    except Exception as error:  # zlib.error and whatever else a damaged file causes
        raise DamagedError(one_line(error), path) from error
    return array


def verified_files(digests: Mapping[str, str]) -> Callable[[Path], Arrays | None]:
    """Return a reader of four gzipped IDX files whose SHA-256 are known, by the names of the files."""

    def read(folder: Path) -> Arrays | None:
        files = {name: folder / name for name in digests if (folder / name).is_file()}
        if not files:
            return None
        if len(files) < len(digests):
            raise DamagedError(f"incomplete: {' and '.join(sorted(set(digests) - set(files)))} missing")
        for name, path in files.items():
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            except UNREADABLE as error:
                raise DamagedError(f"{name} cannot be read now: {one_line(error)}") from error
            if found != digests[name]:
                # It is not renamed: MNIST and its kin have files of the same names.
                raise DamagedError(f"{name} has the SHA-256 {found[:12]}..., not {digests[name][:12]}...")
        return {array: _read_idx_file(files[f"{name}.gz"]) for array, name in IDX_NAMES.items()}

    return read


def one_line(error: BaseException) -> str:
    """Return the reason of an error; network libraries wrap the message of the operating system three times."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = hide(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
