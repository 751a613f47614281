"""Parts of Optuna that are not public, each behind one name. `tests/test_library_internals.py` checks them."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers._tpe import _truncnorm
from optuna.storages import RDBStorage
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy import special

from mnist_pipeline.system import locks
from mnist_pipeline.system.patience import Patience


def reopen(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Return an unfinished trial of the study as one that can be continued."""
    return Trial(study, id_of(trial))


def id_of(trial: FrozenTrial) -> int:
    """Return the id of a trial in its storage."""
    return int(trial._trial_id)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    """Return the trial's value for a key. Optuna's public methods take a range instead of a distribution."""
    return trial._suggest(key, distribution)


def speed_up_tpe() -> None:
    """Let TPE take the logarithm of the normal distribution from SciPy, which computes whole arrays.

    Optuna's own calls Python for every value: after 1,000 trials a proposal takes a tenth of a second, nine times as
    long, while all other workers wait. The two agree within 1e-12.
    """
    _truncnorm._log_ndtr = special.log_ndtr


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


_REPEATABLE = (
    *("get_all_studies", "get_study_id_from_name", "get_study_name_from_id", "get_study_directions"),
    *("get_study_user_attrs", "get_study_system_attrs", "set_study_user_attr", "set_study_system_attr"),
    *("get_trial", "get_trial_id_from_study_id_trial_number", "get_n_trials", "_get_trials", "_get_best_trial_id"),
    *("set_trial_user_attr", "set_trial_system_attr", "set_trial_intermediate_value", "_set_trial_param"),
)
"""The methods of a storage that may be carried out twice."""


class PatientStorage(RDBStorage):
    """A database that may go away for a while, and that one command alone writes to.

    A call whose answer was lost may have been carried out all the same. Each is repeated so that nothing is doubled.
    """

    def __init__(self, url: str, options: dict[str, Any], patience: Patience | None) -> None:
        super().__init__(url, engine_kwargs=options)
        self._patience = patience
        self._creating = threading.Lock()
        self._num_trials: dict[int, int] = {}
        if patience is not None:
            for name in _REPEATABLE:
                setattr(self, name, _repeated(getattr(self, name), patience))

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Create a trial; return the last one if Optuna created several, as it does where an answer is lost."""
        with self._creating:
            number = self._num_trials[study_id] if study_id in self._num_trials else self.get_n_trials(study_id)

            def create() -> FrozenTrial:
                return super(PatientStorage, self)._create_new_trial(study_id, template_trial)

            def look() -> FrozenTrial:
                created = [trial for trial in self.get_all_trials(study_id) if trial.number >= number]
                return created[-1] if created else create()

            created = create() if self._patience is None else self._patience.call(create, again=look)
            self._num_trials[study_id] = created.number + 1
            return created

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change the state of a trial; a change that was made already, by a call without an answer, is a success."""

        def change() -> bool:
            return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)

        def change_again() -> bool:
            try:
                return change() or state is TrialState.RUNNING
            except UpdateFinishedTrialError:
                if self.get_trial(trial_id).state is not state:
                    raise
                return True

        return change() if self._patience is None else self._patience.call(change, again=change_again)


def _repeated(method: Callable[..., Any], patience: Patience) -> Callable[..., Any]:
    return lambda *args, **named: patience.call(lambda: method(*args, **named))
