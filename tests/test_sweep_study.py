import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState

from mnist_pipeline.executors.failure import Cause, Failure
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.backend import open_storage
from mnist_pipeline.sweep.settings import Pruner, Sampler, SweepConfig
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.sweep.study import Study, count_finished
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import Address

BASELINE = {"model.dropout_rate": 0.2, "model.hidden_width": 128, "train.num_epochs": 9}


def make_config(*overrides: str, **changes: Any) -> SweepConfig:
    _, config = settings.compose_sweep(overrides)
    return dataclasses.replace(config, **changes)


def open_study(config: SweepConfig, name: str = "s", **identity: Any) -> Study:
    return Study(config, name=name, identity=identity, max_epochs=15)


def score(params: dict[str, Any], epoch: int) -> float:
    """A made-up learning curve, better with width and epochs, worse with dropout."""
    return float(1 - 1 / (params["model.hidden_width"] * epoch) - params["model.dropout_rate"] / 10)


def run_trial(study: Study, trial: Trial, *, after: int = 0, until: int | None = None) -> None:
    for epoch in range(after + 1, trial.params["train.num_epochs"] + 1):
        trial.report(score(trial.params, epoch), epoch)
        if until == epoch:
            return
        if epoch < trial.params["train.num_epochs"] and trial.should_prune():
            study.tell(trial, TrialState.PRUNED)
            return
    study.tell(trial, TrialState.COMPLETE, value=score(trial.params, trial.params["train.num_epochs"]))


def outcome(study: Study) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values) for trial in study.trials()
    ]


def run_all(config: SweepConfig, name: str) -> list[tuple[Any, ...]]:
    study = open_study(config, name)
    study.enqueue_planned(BASELINE)
    while count_finished(study.trials()) < config.num_trials:
        run_trial(study, study.ask())
    return outcome(study)


@pytest.mark.parametrize("pruner", list(Pruner))
@pytest.mark.parametrize("sampler", [Sampler.tpe, Sampler.random])
def test_a_study_reopened_for_every_trial_proposes_the_same(sampler: Sampler, pruner: Pruner, home: Path) -> None:
    config = make_config(num_trials=25, sampler=sampler, pruner=pruner)
    expected = run_all(config, "study")
    elsewhere = dataclasses.replace(config, storage=Address(str(home / "other")))
    for _ in range(config.num_trials):
        study = open_study(elsewhere, "study")
        study.enqueue_planned(BASELINE)
        run_trial(study, study.ask())
    assert outcome(study) == expected
    assert expected[0][2] == BASELINE


@pytest.mark.parametrize("pruner", [Pruner.median, Pruner.hyperband])
def test_a_trial_that_was_killed_is_adopted(pruner: Pruner, home: Path) -> None:
    """Wherever it was: after its first value was drawn, in the middle of its epochs, before it was told."""
    expected = run_all(make_config(num_trials=20, pruner=pruner), "study")
    config = make_config(num_trials=20, pruner=pruner, storage=Address(str(home / "other")))
    for number in range(config.num_trials):
        study = open_study(config, "study")
        study.enqueue_planned(BASELINE)
        if number % 3 == 0:
            trial = study.ask()
            run_trial(study, trial, until=2 + number % 4)
        elif number % 3 == 1:  # as if killed in the middle of its values
            trial = study.optuna.ask()
            name, distribution = next(iter(study._distributions.items()))
            trial._suggest(name, distribution)
        else:
            study.optuna.ask()
        study = open_study(config, "study")
        for left in study.trials(TrialState.RUNNING):
            adopted = study.adopt(left)
            assert adopted.number == number
            reported = max(left.intermediate_values, default=0)
            if reported and reported < adopted.params["train.num_epochs"] and adopted.should_prune():
                study.tell(adopted, TrialState.PRUNED)
            else:
                run_trial(study, adopted, after=reported)
    assert outcome(study) == expected


@pytest.mark.parametrize("storage", ["journal", "sqlite:///{}/study.db"])
def test_the_trials_in_memory_are_those_in_the_storage(storage: str, home: Path) -> None:
    address = None if storage == "journal" else Address(storage.format(home))
    config = make_config(num_trials=12, storage=address)
    study = open_study(config)
    study.enqueue_planned(BASELINE)
    while count_finished(study.trials()) < config.num_trials:
        trial = study.ask()
        if trial.number == 3:
            study.fail(trial, Failure(Cause.error, "broken"))
        else:
            run_trial(study, trial)
    study.ask()
    stored = open_storage(address, "s")
    found = stored.get_all_trials(stored.get_study_id_from_name("s"))
    assert len(found) == len(study.trials()) == config.num_trials + 2
    for kept, written in zip(study.trials(), found, strict=True):
        assert (kept.datetime_complete is None) == (written.datetime_complete is None)
        for one in (kept, written):
            one.datetime_start = one.datetime_complete = None
        assert kept == written


def test_several_trials_asked_at_once_differ(home: Path) -> None:
    study = open_study(make_config(sampler=Sampler.random))
    proposals = [study.ask().params for _ in range(8)]
    assert len({str(params) for params in proposals}) == 8


def test_the_baseline_comes_first_and_once(home: Path) -> None:
    for _ in range(2):
        study = open_study(make_config())
        study.enqueue_planned(BASELINE)
    assert len(study.trials(TrialState.WAITING)) == 1
    assert study.ask().params == BASELINE
    study.enqueue_planned(BASELINE)
    assert study.trials(TrialState.WAITING) == []


def test_a_grid_is_planned_whole(home: Path) -> None:
    study = open_study(make_config("sweep=grid"))
    study.enqueue_planned(BASELINE)
    study.enqueue_planned(BASELINE)
    asked = [study.ask().params for _ in range(12)]
    assert asked[0] == BASELINE
    assert len({str(sorted(params.items())) for params in asked}) == 12
    assert study.trials(TrialState.WAITING) == []


def test_the_median_decides_as_by_hand(home: Path) -> None:
    """Five complete trials with 0.1, 0.2, ..., 0.5 at epoch 3: whoever is below 0.3 there is pruned, and not before."""
    config = make_config("~sweep.space.train.num_epochs", "train.num_epochs=9")
    study = open_study(config)
    for value in (0.1, 0.2, 0.3, 0.4, 0.5):
        trial = study.ask()
        for epoch in range(1, 10):
            trial.report(value, epoch)
            assert not trial.should_prune()
        study.tell(trial, TrialState.COMPLETE, value=value)
    decisions = []
    for value in (0.29, 0.3, 0.31):
        trial = study.ask()
        for epoch in (1, 2):
            trial.report(value, epoch)
            assert not trial.should_prune()
        trial.report(value, 3)
        decisions.append(trial.should_prune())
    assert decisions == [True, False, False]


def test_hyperband_reaches_to_the_longest_trial(home: Path) -> None:
    study = open_study(make_config(pruner=Pruner.hyperband))
    pruner = study.optuna.pruner
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert pruner._max_resource == 15


def test_a_study_of_another_configuration_is_refused(home: Path) -> None:
    open_study(make_config(), space="0 to 1", seed=0)
    open_study(make_config(), space="0 to 1", seed=0)
    with pytest.raises(UserError, match=r"sweep.study=s exists, .*\(space was 0 to 1, is 2"):
        open_study(make_config(), space="2", seed=0)


def test_two_studies_of_one_name_have_different_ids(home: Path) -> None:
    assert open_study(make_config()).id == open_study(make_config()).id
    first = open_study(make_config()).id
    journal_path("s").unlink()
    assert open_study(make_config()).id != first


def test_an_incomplete_line_is_removed(home: Path) -> None:
    study = open_study(make_config())
    study.ask()
    with journal_path("s").open("ab") as journal:
        journal.write(b'{"op_code": 5, "trial_')
    study = open_study(make_config())
    study.ask()
    assert len(open_study(make_config()).trials()) == 2


def test_sqlite_keeps_a_study_too(home: Path) -> None:
    config = make_config(num_trials=4, storage=f"sqlite:///{home}/studies.db")
    in_journal = run_all(make_config(num_trials=4), "study")
    assert run_all(config, "study") == in_journal
