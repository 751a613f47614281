"""Parts of Optuna that are not public, each behind one name. `tests/test_library_internals.py` checks them."""

import contextlib
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.trial import FrozenTrial, Trial

from mnist_pipeline.system import locks


def reopen(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Return an unfinished trial of the study as one that can be continued."""
    return Trial(study, trial._trial_id)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    """Return the trial's value for a key. Optuna's public methods take a range instead of a distribution."""
    return trial._suggest(key, distribution)


class JournalLock(BaseJournalFileLock):
    """A lock of the operating system. Unlike Optuna's own lock, it is released when a command is killed."""

    def __init__(self, path: Path) -> None:
        self._lock = locks.make(path)

    def acquire(self) -> bool:
        """Wait for the lock, and return that it is held."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def locked(lock: BaseJournalFileLock) -> contextlib.AbstractContextManager[None]:
    """Hold the lock during a `with` block, as Optuna does for each entry of the journal."""
    return get_lock_file(lock)
