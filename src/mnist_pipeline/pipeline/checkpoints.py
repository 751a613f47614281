"""Checkpoints: what a killed run resumes from.

The folder of a run, `mlruns/checkpoints/<fingerprint>/`, holds its last two checkpoints and an id that ties it to the
run in MLflow. One command at a time holds it, by a lock of the operating system that is released when the command dies.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mnist_pipeline.model.score import Score
from mnist_pipeline.system import files, paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.locks import hold
from mnist_pipeline.train.epochs import Epoch, TrainState

NUM_KEPT = 2
_MAGIC = b"mnist-pipeline checkpoint 2\n"
_DIGEST_LENGTH = 64  # SHA-256 in hexadecimal

_log = logging.getLogger(__name__)


class DamagedError(Exception):
    """A checkpoint is not as it was written."""


class NotSavedError(UserError):
    """A checkpoint cannot be written.

    Attributes:
        reason: The message without the next step; it starts with the cause.
    """

    def __init__(self, what: str, folder: Path, error: OSError) -> None:
        self.reason = f"{error.strerror or error}: {what} cannot be written to {folder}"
        super().__init__(f"{self.reason}; free some space there and run the same command again, which resumes")


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def id(self) -> str:
        """The id that the run in MLflow has as a tag: 32 hexadecimal digits, new after `clear`.

        Raises:
            NotSavedError: It cannot be written.
        """
        path = self._folder / "id"
        known = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
        if not re.fullmatch("[0-9a-f]{32}", known):
            known = uuid.uuid4().hex
            try:
                _write(path, known.encode())
            except OSError as error:
                raise NotSavedError("the id of the run", self._folder, error) from error
        return known

    def save(self, state: TrainState) -> None:
        """Write `state` durably, and remove all checkpoints but the last two.

        Raises:
            NotSavedError: It cannot be written, for example because the disk is full. Nothing is left half-written.
        """
        self.save_encoded(len(state.history), encode(state))

    def save_encoded(self, number: int, encoded: bytes) -> None:
        """Write what `encode` returned for the state after the epoch `number`, as `save` does."""
        try:
            _write(self._path(number), encoded)
        except OSError as error:
            raise NotSavedError(f"the checkpoint of epoch {number}", self._folder, error) from error
        for older in self._numbers()[NUM_KEPT:]:
            self._path(older).unlink(missing_ok=True)

    def load(self) -> TrainState | None:
        """Return the state after the last epoch with a complete checkpoint; None if there is none."""
        encoded = self.load_encoded()
        return decode(encoded) if encoded else None

    def load_encoded(self) -> bytes | None:
        """Return the bytes that `load` would decode."""
        for number in self._numbers():
            path = self._path(number)
            try:
                content = path.read_bytes()
                _check(content)
            except (DamagedError, OSError) as error:
                _log.warning("the checkpoint %s is skipped: %s", path, error)
            else:
                return content
        return None

    def clear(self) -> None:
        """Remove everything, because the run is finished. What is saved afterwards belongs to a new run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"epoch-{number}.checkpoint"

    def _numbers(self) -> list[int]:
        """Return the numbers of the epochs that have a checkpoint, the last one first."""
        found = (re.fullmatch(r"epoch-(\d+)", path.stem) for path in self._folder.glob("*.checkpoint"))
        return sorted((int(match[1]) for match in found if match), reverse=True)


def has_checkpoints(fingerprint: str | None) -> bool:
    """Return whether an interrupted run with this fingerprint has left any."""
    return bool(fingerprint) and any((paths.checkpoints_dir() / str(fingerprint)).glob("*.checkpoint"))


def lock_of(fingerprint: str) -> Path:
    """Return the file of the lock that a command holds while it carries out the run with this fingerprint."""
    return paths.checkpoints_dir() / f"{fingerprint}.lock"


@contextlib.contextmanager
def claim(fingerprint: str, *, wait: bool) -> Iterator[Checkpoints]:
    """Hold the checkpoints of the run with this fingerprint; if they were cleared, remove the lock file too.

    Args:
        fingerprint: SHA-256 of everything that decides the run's result.
        wait: Wait for another holder instead of failing.

    Raises:
        UserError: Another process holds them and `wait` is false.
    """
    folder, lock = paths.checkpoints_dir() / fingerprint, lock_of(fingerprint)
    next_step = "or give it another train.seed"
    with hold(lock, what="this run", wait=wait, next_step=next_step):
        yield Checkpoints(folder)
        if not folder.exists():
            # While the lock is still held: a command that waits for it notices that the file is gone, and creates a new
            # one.
            with contextlib.suppress(OSError):
                lock.unlink()


def encode(state: TrainState) -> bytes:
    """Return `state` as bytes: a line that names the format, the SHA-256 of the rest, and the rest, a NumPy `.npz`."""
    buffer = io.BytesIO()
    history = json.dumps([dataclasses.asdict(epoch) for epoch in state.history])
    groups = {"array": state.arrays, "kept": state.kept}
    arrays = {f"{name}_{index}": array for name, group in groups.items() for index, array in enumerate(group)}
    np.savez(buffer, allow_pickle=False, history=np.array(history), **arrays)
    payload = buffer.getvalue()
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def decode(content: bytes) -> TrainState:
    """Return what `encode` was given.

    Raises:
        DamagedError: The bytes are not all as they were written.
    """
    payload = _check(content)
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        history = json.loads(str(stored["history"]))
        arrays, kept = (
            tuple(stored[f"{name}_{index}"] for index in range(sum(key.startswith(f"{name}_") for key in stored)))
            for name in ("array", "kept")
        )
    return TrainState(history=tuple(_epoch(values) for values in history), arrays=arrays, kept=kept)


def _check(content: bytes) -> bytes:
    """Return the payload of an encoded state."""
    start = len(_MAGIC) + _DIGEST_LENGTH + 1
    header, payload = content[:start], content[start:]
    if header != _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise DamagedError(f"its {len(content):,} bytes are not as they were written")
    return payload


def _epoch(values: dict[str, object]) -> Epoch:
    scores = {name: values[name] and Score(**values[name]) for name in ("train", "validation")}  # type: ignore[arg-type]
    return Epoch(**{**values, **scores})  # type: ignore[arg-type]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as unfinished:
        unfinished.write_bytes(content)
