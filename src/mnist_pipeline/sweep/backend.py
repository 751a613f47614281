"""What Optuna reads and writes a study through: a journal file, or a database."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline.sweep import optuna_internals
from mnist_pipeline.sweep import storage as storage_files
from mnist_pipeline.system import paths
from mnist_pipeline.system.secrets import Address

BUSY_SEC = 60
"""Seconds that a SQLite database may be locked by other commands."""
NUM_OPENINGS = 4
OPENING_PAUSE_SEC = 0.4


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


def open_storage(storage: str | None, study: str) -> BaseStorage:
    """Open the storage of `sweep.storage`; None stands for the journal of `study`.

    Raises:
        UserError: Its file has other content, or is damaged.
        Exception: Whatever Optuna and its backends raise if it cannot be opened.
    """
    if storage is not None:
        storage_files.check(storage)
        if storage_files.is_url(storage):
            return _open_database(Address(storage).reveal())
    named = paths.expand(Address(storage).reveal()) if storage else storage_files.journal_path(study)
    path = Path(os.path.realpath(named))  # a journal has one lock, even if several links lead to it
    storage_files.check_journal(path, is_ours=storage is None)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No file of the user has this name: taking the lock empties its file.
    lock = optuna_internals.JournalLock(path.with_name(f".{path.name}.mnist-pipeline.lock"))
    with optuna_internals.locked(lock):
        storage_files.cut_torn_line(path)
    return JournalStorage(_Journal(str(path), lock_obj=lock))


def _open_database(url: str) -> RDBStorage:
    """Open a database that another command may be creating at the same time."""
    options = {"connect_args": {"timeout": BUSY_SEC}} if url.startswith("sqlite") else None
    for _ in range(NUM_OPENINGS - 1):
        with contextlib.suppress(SQLAlchemyError, StorageInternalError, AssertionError):
            return RDBStorage(url, engine_kwargs=options)
        time.sleep(OPENING_PAUSE_SEC)
    return RDBStorage(url, engine_kwargs=options)
