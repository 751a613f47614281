"""Decoded data sets, kept under `mlruns/cache/` so that the next command need not read a thousand files again.

An entry's name has a key of what was read, and the digest of what was found, by which it is verified.
"""

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data.dataset import Attempt, Found, Split
from mnist_pipeline.system import files, paths

MAX_BYTES = 5_000_000_000
"""Of all entries together; the ones that were used least recently go first."""

_FORMAT = 1
_LENGTH = 32
_OWN = "mnist_pipeline."

_log = logging.getLogger(__name__)


def make_key(config: DataConfig) -> str | None:
    """Return the SHA-256 of the options and of the name, size and time of every file; None if they are unknown."""
    path = config.arguments.get("path")
    if path is None or not config.target.startswith(_OWN):
        return None  # nobody knows what somebody's own function reads
    others = config.arguments.get("test_path")
    listing = [list(map(str, one)) for place in (path, others) if place for one in _list_files(paths.expand(place))]
    described = [
        _FORMAT, config.target, {key: str(value) for key, value in config.arguments.items()}, listing,
        str(config.test_size), config.test_seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


def _list_files(path: Path) -> Iterator[tuple[str, int, int]]:
    if path.is_file():
        status = path.stat()
        yield path.name, status.st_size, status.st_mtime_ns
        return
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 (60,000 times)
                yield os.path.relpath(os.path.join(parent, name), path), status.st_size, status.st_mtime_ns  # noqa: PTH118


def find(config: DataConfig, key: str | None) -> Found | None:
    """Return the data set that was read under this key; None if there is none that is whole."""
    entries = [] if key is None else _entries(f"{key[:_LENGTH]}-*.npz")
    return next((found for entry in entries if (found := _read(entry, name=config.name))), None)


def find_by_digest(digest: str, *, name: str) -> Found | None:
    """Return the data set with this digest; None if there is none that is whole."""
    entries = _entries(f"*-{digest[:_LENGTH]}.npz") if digest.isalnum() else []
    return next((found for entry in entries if (found := _read(entry, name=name))), None)


def save(found: Found, key: str | None) -> None:
    """Keep a data set. What cannot be written is not kept: the next command reads the files again."""
    splits = {"learn": found.learn, "validation": found.validation, "test": found.test}
    arrays = {
        f"{name}_{part}": getattr(split, part)
        for name, split in splits.items()
        if split is not None
        for part in ("images", "labels")
    }
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
        return
    entry = folder() / f"{(key or hashlib.sha256(b'').hexdigest())[:_LENGTH]}-{found.digest[:_LENGTH]}.npz"
    if entry.exists():
        return
    about = {"class_names": found.class_names, "source": found.attempts[-1].source, "skipped": found.skipped}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with files.whole(entry) as unfinished, unfinished.open("wb") as file:
            _write(file, {"about": np.array(json.dumps(about)), **arrays})
        _remove_old()
    except OSError as error:
        _log.info("data      the decoded images are not kept (%s)", error.strerror or error)


def _write(file: BinaryIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an NPZ file as `numpy.savez` does, but without its copies of 16 MB."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            plain = np.asarray(array, order="C")  # ascontiguousarray would give a single value an axis
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(plain))
                member.write(plain.reshape(-1).view(np.uint8).data)


def _read(entry: Path, *, name: str) -> Found | None:
    try:
        found = _decode(entry, name=name)
        os.utime(entry)  # it was used now
        return found
    except Exception as error:  # whatever a damaged archive causes
        _log.warning("%s is damaged (%s): the files are read again", entry, error)
    with contextlib.suppress(OSError):
        entry.unlink(missing_ok=True)
    return None


def _decode(entry: Path, *, name: str) -> Found:
    with entry.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        about = json.loads(str(archive["about"]))
        splits = {
            one: Split(archive[f"{one}_images"], archive[f"{one}_labels"])
            for one in ("learn", "validation", "test")
            if f"{one}_images" in archive.files
        }
    found = Found(
        name=name,
        learn=splits["learn"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=tuple(about["class_names"]),
        attempts=(Attempt(about["source"], "found, decoded before"),),
        skipped=tuple(about["skipped"]),
    )
    if found.digest[:_LENGTH] != entry.stem.rpartition("-")[2]:
        raise ValueError("its digest is another")
    return found


def folder() -> Path:
    """Return where they are kept."""
    return paths.mlruns_dir() / "cache"


def list_entries() -> list[Path]:
    """Return the file of every data set that is kept."""
    return _entries("*.npz")


def is_whole(entry: Path) -> bool:
    """Return whether a data set is as it was written."""
    try:
        _decode(entry, name="")
    except Exception:  # whatever a damaged archive causes
        return False
    return True


def _entries(pattern: str) -> list[Path]:
    return sorted(folder().glob(pattern))


def _remove_old() -> None:
    entries = sorted(list_entries(), key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in entries:
        total += entry.stat().st_size
        if total > MAX_BYTES:
            entry.unlink(missing_ok=True)
