"""What Optuna reads and writes a study through: a journal file, or a database."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline.sweep import optuna_internals
from mnist_pipeline.sweep import storage as storage_files
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import CLUSTER_EXTRA
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.system.secrets import Address, hide

BUSY_SEC = 60
"""Seconds that a SQLite database may be locked by other commands."""
CONNECTION = {
    "connect_timeout": 10,
    "tcp_user_timeout": 25_000,
    **{"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3},
}
"""Settings of a PostgreSQL client that notices within half a minute that it is cut off; the timeouts in s and ms."""
NUM_OPENINGS = 4
OPENING_PAUSE_SEC = 0.4
_POOL_TIMEOUT_SEC = 600  # while the database is away, many threads may wait for the same few connections


class _Journal(JournalFileBackend):
    """Optuna's journal, without incomplete entries."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with optuna_internals.locked(self._lock):
            size = Path(self._file_path).stat().st_size
            try:
                super().append_logs(logs)
            except OSError:
                # The next entry would be appended to the incomplete one.
                os.truncate(self._file_path, size)
                raise


def open_storage(storage: str | None, study: str, *, patience: Patience | None = None) -> BaseStorage:
    """Open the storage of `sweep.storage`; None stands for the journal of `study`.

    Args:
        storage: Of the configuration.
        study: Its name.
        patience: With a database that is away once it is open.

    Raises:
        UserError: Its file has other content, or is damaged.
        Exception: Whatever Optuna and its backends raise if it cannot be opened.
    """
    if storage is not None:
        storage_files.check(storage)
        if storage_files.is_url(storage):
            return _open_database(Address(storage).reveal(), patience)
    named = paths.expand(Address(storage).reveal()) if storage else storage_files.journal_path(study)
    path = Path(os.path.realpath(named))  # a journal has one lock, even if several links lead to it
    storage_files.check_journal(path, is_ours=storage is None)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No file of the user has this name: taking the lock empties its file.
    lock = optuna_internals.JournalLock(path.with_name(f".{path.name}.mnist-pipeline.lock"))
    with optuna_internals.locked(lock):
        storage_files.cut_torn_line(path)
    return JournalStorage(_Journal(str(path), lock_obj=lock))


def _open_database(url: str, patience: Patience | None) -> RDBStorage:
    """Open a database that another command may be creating at the same time."""
    for _ in range(NUM_OPENINGS - 1):
        with contextlib.suppress(SQLAlchemyError, StorageInternalError, AssertionError):
            return _open_once(url, patience)
        time.sleep(OPENING_PAUSE_SEC)
    return _open_once(url, patience)


def _open_once(url: str, patience: Patience | None) -> RDBStorage:
    if url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_SEC}})
    options = {"connect_args": CONNECTION, "pool_pre_ping": True, "pool_timeout": _POOL_TIMEOUT_SEC}
    return optuna_internals.PatientStorage(url, options, patience)


@contextlib.contextmanager
def opening(storage: str) -> Iterator[None]:
    """Report in one line that a storage cannot be opened.

    Raises:
        UserError: It cannot.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"sweep.storage={storage}: the driver of this database is not installed; {CLUSTER_EXTRA}"
        ) from error
    except Exception as error:  # Optuna passes on whatever its storage raises
        raise UserError(
            f"sweep.storage={storage} cannot be opened ({type(error).__name__}: {explain(error)}): fix that, "
            "or give another"
        ) from error


def explain(error: BaseException) -> str:
    """Return in one line why a storage failed."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return explain(error.__cause__)
    return hide(" ".join(str(getattr(error, "orig", None) or error).split()))[:300]
