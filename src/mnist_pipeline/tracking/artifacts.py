"""The files of a run or of a logged model, in any artifact store of MLflow; a local one is read without MLflow."""

import errno
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.absence import is_absent, is_of_store
from mnist_pipeline.tracking.sqlite_store import folder_of


class ArtifactFolder:
    """A folder of artifacts, by the address of a run (`artifact_uri`) or of a model (`artifact_location`).

    Raises:
        UserError: MLflow does not support such an address.
    """

    def __init__(self, address: str, *, tracking_uri: str) -> None:
        self._address = address
        self._tracking_uri = tracking_uri
        self._folder = folder_of(address)
        if self._folder is None:
            self._repository  # noqa: B018 (an address that MLflow does not know is refused now)

    @functools.cached_property
    def _repository(self) -> Any:
        from mlflow.exceptions import MlflowException  # imported here, because local files need no MLflow
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            return get_artifact_repository(self._address, tracking_uri=self._tracking_uri)
        except MlflowException as error:
            raise UserError(
                f"the artifacts at {self._address} cannot be reached ({error}): see MLflow's documentation"
            ) from error

    def upload(self, folder: Path) -> None:
        """Write every file in `folder` under the folder's own name.

        Raises:
            OSError: The store is a folder, and cannot be written to.
            Exception: Whatever MLflow and the library of another store raise.
        """
        self._repository.log_artifacts(str(folder), folder.name)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file, by its path.

        Raises:
            UserError: The store does not answer, or permission is missing.
        """
        try:
            return dict(self._list_remote(None) if self._folder is None else _list_local(self._folder, ""))
        except Exception as error:
            if is_absent(error):
                return {}
            raise _unreadable("the artifacts", error) from error

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: There is no such file.
            UserError: It cannot be read now: the store does not answer, the disk is full, or permission is missing.
        """
        try:
            if self._folder is not None:
                return _read_regular(self._folder / path)
            with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
                return _read_regular(Path(self._repository.download_artifacts(path, scratch)))
        except Exception as error:
            if is_absent(error) or (_can_say_why(error) and not self.has(path)):
                raise FileNotFoundError(errno.ENOENT, "no such artifact", path) from error
            raise _unreadable(path, error) from error

    def has(self, path: str) -> bool:
        """Return whether the store lists a file, or cannot say."""
        if self._folder is not None:
            return (self._folder / path).exists()
        folder = str(PurePosixPath(path).parent)
        try:
            infos = self._repository.list_artifacts(None if folder == "." else folder)
        except Exception as error:
            if not _can_say_why(error):
                raise
            return not is_absent(error)
        return any(info.path == path for info in infos)

    def _list_remote(self, folder: str | None) -> Iterator[tuple[str, int]]:
        for info in self._repository.list_artifacts(folder):
            if info.is_dir:
                yield from self._list_remote(info.path)
            else:
                yield info.path, info.file_size


def _list_local(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _list_local(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size


def _read_regular(path: Path) -> bytes:
    if not path.is_file():  # a pipe could block
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
    return path.read_bytes()


def _can_say_why(error: Exception) -> bool:
    return isinstance(error, OSError) or is_of_store(error)


def _unreadable(path: str, error: Exception) -> Exception:
    """Return the error for a user; one that no store raises is a fault of this program, and stays as it is."""
    if not _can_say_why(error):
        return error
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
    return UserError(f"{path} cannot be read now ({reason}): nothing was decided; run the same command again")
