"""The storage of a study that this command alone writes to: every trial is kept in memory, and none is read twice."""

import copy
import threading
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnist_pipeline.sweep import optuna_internals


class OwnedStorage(BaseStorage):
    """Another storage, each write to which is repeated in memory once it has succeeded.

    A trial is never changed: what a thread has read stays as it is, as Optuna expects of a storage.
    """

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend
        self._trials: dict[int, dict[int, FrozenTrial]] = {}
        self._lock = threading.Lock()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers."""
        with self._lock:
            trials = list(self._of_study(study_id).values())
        found = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _of_study(self, study_id: int) -> dict[int, FrozenTrial]:
        """Return the trials of a study by their ids."""
        if study_id not in self._trials:
            found = self._backend.get_all_trials(study_id, deepcopy=False)
            self._trials[study_id] = {optuna_internals.id_of(trial): trial for trial in found}
        return self._trials[study_id]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        with self._lock:
            return self._find(trial_id)[trial_id]

    def _find(self, trial_id: int) -> dict[int, FrozenTrial]:
        """Return the trials of the study that has this one."""
        for trials in self._trials.values():
            if trial_id in trials:
                return trials
        raise KeyError(f"no trial has the id {trial_id}")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial and return its id."""
        with self._lock:
            known = self._of_study(study_id)
            number = len(known)
            trial_id = self._backend.create_new_trial(study_id, template_trial)
            created = self._backend.get_trial(trial_id)
            if created.number == number:
                known[trial_id] = created
                return trial_id
            # An answer was lost, so that more than one was created. The later ones are RUNNING, and are adopted.
            del self._trials[study_id]
            return next(key for key, trial in self._of_study(study_id).items() if trial.number == number)

    def _change(self, trial_id: int, **changed: Any) -> None:
        with self._lock:
            trials = self._find(trial_id)
            trial = copy.copy(trials[trial_id])
            for name, value in changed.items():
                known = getattr(trial, name)
                setattr(trial, name, {**known, **value} if isinstance(value, Mapping) else value)
            trials[trial_id] = trial

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set the value of a swept key, as Optuna represents it."""
        self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        value = distribution.to_external_repr(param_value_internal)
        self._change(trial_id, params={param_name: value}, distributions={param_name: distribution})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value at an epoch."""
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._change(trial_id, intermediate_values={step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of ours."""
        self._backend.set_trial_user_attr(trial_id, key, value)
        self._change(trial_id, user_attrs={key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's."""
        self._backend.set_trial_system_attr(trial_id, key, value)
        self._change(trial_id, system_attrs={key: value})

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change the state of a trial; return False if it was to run and runs already."""
        if not self._backend.set_trial_state_values(trial_id, state, values):
            return False
        changed: dict[str, Any] = {"state": state}
        if values is not None:
            changed["values"] = list(values)
        if state is TrialState.RUNNING:
            changed["datetime_start"] = datetime.now()
        if state.is_finished():
            changed["datetime_complete"] = datetime.now()
        self._change(trial_id, **changed)
        return True

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study and return its id."""
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study."""
        self._backend.delete_study(study_id)
        self._trials.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of ours."""
        self._backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's."""
        self._backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study."""
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study."""
        return self._backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return whether the best values of a study are the largest."""
        return self._backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes that are ours."""
        return self._backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes that are Optuna's."""
        return self._backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """Return all studies."""
        return self._backend.get_all_studies()
