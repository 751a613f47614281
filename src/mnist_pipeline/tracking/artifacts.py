"""The files of a run or of a logged model, in any artifact store of MLflow."""

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import requests
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mnist_pipeline.system.errors import UserError

_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""The error numbers of a missing file; MLflow's own OSError has none."""


class ArtifactFolder:
    """A folder of artifacts, by the address of a run (`artifact_uri`) or of a model (`artifact_location`).

    Raises:
        UserError: MLflow does not support such an address.
    """

    def __init__(self, address: str, *, tracking_uri: str) -> None:
        try:
            self._repository = get_artifact_repository(address, tracking_uri=tracking_uri)
        except MlflowException as error:
            raise UserError(
                f"the artifacts at {address} cannot be reached ({error}): see MLflow's documentation"
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
            return dict(self._walk(None))
        except (MlflowException, OSError) as error:
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
            if isinstance(self._repository, LocalArtifactRepository):
                return _read_regular(Path(self._repository.download_artifacts(path)))
            with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
                return _read_regular(Path(self._repository.download_artifacts(path, scratch)))
        except (MlflowException, OSError) as error:
            if is_absent(error) or not self._is_listed(path):
                raise FileNotFoundError(errno.ENOENT, "no such artifact", path) from error
            raise _unreadable(path, error) from error

    def _is_listed(self, path: str) -> bool:
        """Return whether the store lists a file. The error of a download from a server does not say why it failed."""
        folder = str(PurePosixPath(path).parent)
        try:
            infos = self._repository.list_artifacts(None if folder == "." else folder)
        except (MlflowException, OSError) as error:
            return not is_absent(error)
        return any(info.path == path for info in infos)

    def _walk(self, folder: str | None) -> Iterator[tuple[str, int]]:
        for info in self._repository.list_artifacts(folder):
            if info.is_dir:
                yield from self._walk(info.path)
            else:
                yield info.path, info.file_size


def is_absent(error: Exception) -> bool:
    """Return whether an error says that something does not exist, not that it could not be reached."""
    match error:
        case requests.HTTPError():
            return error.response is not None and error.response.status_code == requests.codes.not_found
        case requests.RequestException():
            return False
        case OSError():
            return error.errno in _ABSENT
        case MlflowException():
            return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        case _:
            return False


def _read_regular(path: Path) -> bytes:
    if not path.is_file():  # a pipe could block
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
    return path.read_bytes()


def _unreadable(path: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
    return UserError(f"{path} cannot be read now ({reason}): nothing was decided; run the same command again")
