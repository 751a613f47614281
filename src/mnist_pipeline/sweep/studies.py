"""What the journals under `mlruns/` hold, read without changing them."""

from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mnist_pipeline.sweep.study import UNIQUE_ID


@dataclass(frozen=True)
class Summary:
    """A study.

    Attributes:
        id: As tagged on the run of its sweep; None where a kill left the study without.
        num_unfinished: Trials that were neither finished nor failed.
    """

    name: str
    id: str | None
    num_unfinished: int


def read_journal(path: Path) -> list[Summary]:
    """Return the studies in a journal that `storage.check_journal` accepts."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return [
        Summary(
            name=study.study_name,
            id=study.user_attrs.get(UNIQUE_ID),
            num_unfinished=len(storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))),
        )
        for study in storage.get_all_studies()
    ]
