"""The study: the state of a sweep in Optuna, from which a killed sweep resumes.

Only the sweep's own process uses Optuna. Its proposals are a pure function of the study's seed, the trial's number and
the finished trials, so that a killed and resumed sweep makes the same proposals.
"""

import contextlib
import json
import logging
import shlex
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline.executors.failure import CAUSE_ATTRIBUTE, REASON, Cause, Failure, read_cause
from mnist_pipeline.sweep import optuna_internals
from mnist_pipeline.sweep import storage as storage_files
from mnist_pipeline.sweep.backend import explain, open_storage, opening
from mnist_pipeline.sweep.owned_storage import OwnedStorage
from mnist_pipeline.sweep.ownership import Owner, stayed_away, taken_over
from mnist_pipeline.sweep.settings import Direction, Pruner, Sampler, SweepConfig
from mnist_pipeline.sweep.space import Choice, Dimension, Interval
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.tracking.absence import is_away

IDENTITY = "identity"
UNIQUE_ID = "id"
OWNER = "owner"
RUN = "run_id"
SOURCE = "source"
NUM_UNPRUNED_TRIALS = 5
NUM_UNPRUNED_EPOCHS = 3
"""The median pruner ends no trial before this many are complete, and none in its first epochs."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Study:
    """An Optuna study, opened or created.

    Args:
        config: Of the sweep.
        name: Of the study.
        identity: What decides the results of its trials.
        max_epochs: That a trial may have.
        owner: What says whether this command still owns the study, which it must before it writes.
        patience: With a database that is away.

    Attributes:
        id: 32 unique hexadecimal digits, whatever the study's name.
        space: The swept keys.
    """

    def __init__(
        self,
        config: SweepConfig,
        *,
        name: str,
        identity: Mapping[str, Any],
        max_epochs: int,
        owner: Owner | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self.space = config.space
        self._config = config
        self._patience = patience
        self._planned: list[dict[str, Any]] = []
        self._planning = threading.Lock()
        self._distributions = {key: _distribution(dimension) for key, dimension in config.space.items()}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with warnings.catch_warnings(), opening(self._shown()):
            warnings.simplefilter("ignore")  # about experimental features of Optuna: the versions are pinned
            self._storage = OwnedStorage(open_storage(config.storage, name, patience=patience))
            self.optuna = optuna.create_study(
                storage=self._storage,
                study_name=name,
                sampler=_Repeatable(config),
                pruner=_make_pruner(config.pruner, max_epochs=max_epochs),
                direction=config.direction.value,
                load_if_exists=True,
            )
            known = self.optuna.user_attrs
            if IDENTITY not in known:
                self.optuna.set_user_attr(UNIQUE_ID, uuid.uuid4().hex)
                self.optuna.set_user_attr(IDENTITY, json.dumps(identity, sort_keys=True))
                known = self.optuna.user_attrs
            self._owner = owner or Owner()
            self._owner.on_regained = self._require_unclaimed
            self._claim = uuid.uuid4().hex
            self.optuna.set_user_attr(OWNER, self._claim)
        self.id: str = known[UNIQUE_ID]
        _require_same(json.loads(known[IDENTITY]), json.loads(json.dumps(identity)), name=name)

    def require_owned(self) -> None:
        """Require that no other command has taken the study over.

        Raises:
            TakenOverError: One has, or may have.
        """
        self._owner.check()

    def _require_unclaimed(self) -> None:
        if self.optuna.user_attrs.get(OWNER) != self._claim:
            raise taken_over(f"the study {self.name}", "another command, which has ended since,")

    def enqueue_planned(self, first: Mapping[str, Any] | None) -> None:
        """Enqueue the first trials: the baseline, and every point of a grid.

        A point counts as tried if a trial of it is running, has finished or has diverged. A point whose trials all
        failed with an error is tried again.
        """
        self._planned = [dict(first)] if first is not None else []
        if self._config.sampler is Sampler.grid:
            self._planned += [point for point in self.space.points() if point != first]
        self._enqueue_missing()

    def _enqueue_missing(self) -> None:
        with self._planning, self.reporting_errors():
            tried = [trial.system_attrs.get("fixed_params") for trial in self.trials() if not _may_try_again(trial)]
            for point in self._planned:
                if point not in tried:
                    self.optuna.enqueue_trial(point)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in the order of their numbers: all of them, or those in one of `states`."""
        with self.reporting_errors():
            return self.optuna.get_trials(deepcopy=False, states=states or None)

    def failed(self, *causes: Cause) -> list[FrozenTrial]:
        """Return the failed trials, or those with one of `causes`; by default without those that were only stopped."""
        wanted = causes or (Cause.diverged, Cause.error)
        return [trial for trial in self.trials(TrialState.FAIL) if read_cause(trial.user_attrs) in wanted]

    def ask(self) -> Trial:
        """Return a new trial with all of its values."""
        self.require_owned()
        with warnings.catch_warnings(), self.reporting_errors():
            warnings.simplefilter("ignore")
            return self._complete(self.optuna.ask())

    def adopt(self, trial: FrozenTrial) -> Trial:
        """Return the trial that a killed command left unfinished, with the same number and values."""
        self.require_owned()
        with warnings.catch_warnings(), self.reporting_errors():
            warnings.simplefilter("ignore")
            return self._complete(optuna_internals.reopen(self.optuna, trial))

    def _complete(self, trial: Trial) -> Trial:
        for key, distribution in self._distributions.items():
            if self.space.is_active(key, trial.params):
                optuna_internals.suggest(trial, key, distribution)
        return trial

    def tell(self, trial: Trial, state: TrialState, *, value: float | None = None) -> None:
        """Finish a trial. A pruned one has its last reported value."""
        self.require_owned()
        with self.reporting_errors():
            self.optuna.tell(trial, values=value if state is TrialState.COMPLETE else None, state=state)

    def fail(self, trial: Trial, failure: Failure) -> None:
        """Finish a trial as failed; if it was planned and failed with an error, enqueue it again."""
        self.require_owned()
        with self.reporting_errors():
            trial.set_user_attr(REASON, failure.reason)
            trial.set_user_attr(CAUSE_ATTRIBUTE, failure.cause.value)
        self.tell(trial, TrialState.FAIL)
        self._enqueue_missing()

    def best(self) -> FrozenTrial | None:
        """Return the best complete trial; of equal ones, the earliest."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[FrozenTrial]:
        """Return the complete trials, the best first; of equal ones, the earliest first."""
        sign = -1 if self._config.direction is Direction.maximize else 1
        complete = self.trials(TrialState.COMPLETE)
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @contextlib.contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Report in one line that Optuna cannot read or write the study.

        Raises:
            UserError: Its storage fails, or somebody has deleted it. Everything written before is kept.
        """
        try:
            yield
        except (OSError, SQLAlchemyError, StorageInternalError) as error:
            if self._patience is not None and is_away(error):
                raise stayed_away(f"the study {self.name}", self._patience) from error
            raise UserError(
                f"{explain(error)}: the study cannot be written to sweep.storage={self._shown()}; fix that and run the "
                "same command again, which resumes"
            ) from error
        except KeyError as error:  # how Optuna's storages say that a record is gone
            if self.name in optuna.get_all_study_names(self._storage):
                raise
            raise UserError(
                f"the study {self.name} was deleted from sweep.storage={self._shown()} meanwhile: the same command "
                "begins it anew, and reuses the epochs that are tracked"
            ) from error

    def _shown(self) -> str:
        return self._config.storage or str(storage_files.journal_path(self.name))


def _may_try_again(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and read_cause(trial.user_attrs) is not Cause.diverged


def count_finished(trials: Sequence[FrozenTrial]) -> int:
    """Return how many trials count towards `sweep.num_trials`."""
    return sum(trial.state in FINISHED for trial in trials)


def _require_same(known: dict[str, Any], asked: dict[str, Any], *, name: str) -> None:
    differing = [key for key in sorted({*known, *asked}) if known.get(key) != asked.get(key)]
    if differing:
        shown = "; ".join(f"{key} was {_short(known.get(key))}, is {_short(asked.get(key))}" for key in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"sweep.study={name} exists, but for another configuration, data or code ({shown}{more}): give this sweep "
            f"another sweep.study (the old one stays readable: {command('dashboard', _quote(name))})"
        )


def _quote(name: str) -> str:
    return shlex.quote(f"sweep.study={name}")


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    assert isinstance(dimension, Interval)
    if dimension.is_integer:
        return IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step or 1)
        )
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _make_pruner(pruner: Pruner, *, max_epochs: int) -> optuna.pruners.BasePruner:
    if pruner is Pruner.median:
        return optuna.pruners.MedianPruner(n_startup_trials=NUM_UNPRUNED_TRIALS, n_warmup_steps=NUM_UNPRUNED_EPOCHS)
    if pruner is Pruner.hyperband:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max_epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


class _Repeatable(BaseSampler):
    """A sampler that is seeded again for every value, from the study's seed and the purpose of the value.

    Optuna's own samplers draw from one stream, so a resumed study would restart it and repeat its first proposals.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._seed = config.seed
        self._is_tpe = config.sampler is Sampler.tpe
        self._has_conditions = bool(config.space.options)
        if self._is_tpe:
            optuna_internals.speed_up_tpe()

    def _sampler(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        words = np.random.SeedSequence((self._seed, trial.number, *name.encode())).generate_state(1)
        seed = int(words[0])
        if not self._is_tpe:
            return RandomSampler(seed=seed)
        # constant_liar: running trials count as bad, or all workers would get similar points.
        # group: keys that not all trials have are modelled together too, among the trials that have them.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, group=self._has_conditions)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        sampler = self._sampler(trial)
        sampler.infer_relative_search_space(study, trial)  # a sampler of groups remembers what it found
        return sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)
