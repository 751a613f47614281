"""Promotion and rollback, killed, interrupted, and called twice at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import command
from mlflow import MlflowClient
from registry_home import GATES, MODEL, Trained, aliases, call, champion, open_store, where
from test_registry import tagged

from mnist_pipeline.registry import ledger
from mnist_pipeline.registry.changes import alone
from mnist_pipeline.registry.history import read_history
from mnist_pipeline.registry.ledger import Outcome
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.rollback import rollback
from mnist_pipeline.system.errors import UserError

KILL_AT = str(Path(__file__).with_name("kill_at.py"))


@pytest.mark.slow
def test_a_second_command_on_this_machine_fails_or_waits(local: str, trained: Trained) -> None:
    registry = Registry(open_store(local), MODEL)
    with (
        alone(registry, wait=False),
        pytest.raises(UserError, match=f"the registered model {MODEL} is in use by process"),
    ):
        call(local, trained.weak)
    children = [
        subprocess.Popen(
            command("promote", run, "data=digits", "wait=true", *GATES),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for run in (trained.weak, trained.better)
    ]
    codes = {child.wait(120) for child in children}
    entries = registry.ledger.entries()
    assert codes <= {0, 3}
    assert len(entries) == 2
    assert {entry.outcome for entry in entries} <= {Outcome.promoted, Outcome.refused}
    assert champion(local) == ledger.champion_of(entries)
    assert MlflowClient(local).get_model_version(MODEL, str(champion(local))).run_id == trained.better


MOMENTS = [
    "call mnist_pipeline.registry.ledger Ledger.decide 1 after",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.point 2 after",
]


SLOW_MOMENTS = [
    "call mnist_pipeline.registry.ledger Ledger.open 1 before",
    "call mnist_pipeline.registry.ledger Ledger.open 1 after",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.register 1 after",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.point 1 after",
    "call mlflow.tracking.client MlflowClient.create_model_version 1 after",
    "call mlflow.tracking.client MlflowClient.log_text 1 after",
    "call mnist_pipeline.registry.ledger Ledger.decide 1 before",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.point 3 after",
    "call mnist_pipeline.tracking.runs tag_only 1 after",
    "call mnist_pipeline.tracking.runs tag_only 2 after",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.describe_version 1 after",
    "call mnist_pipeline.tracking.registered_models RegisteredModel.describe 1 after",
    "call mnist_pipeline.registry.ledger Ledger.close 1 before",
    "call mnist_pipeline.registry.ledger Ledger.close 1 after",
]


@pytest.mark.parametrize("moment", [*MOMENTS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_MOMENTS)])
def test_killed_at_any_moment_ledger_and_alias_agree_afterwards(moment: str, local: str, trained: Trained) -> None:
    call(local, trained.weak)
    child = subprocess.Popen(
        [sys.executable, KILL_AT, moment, "promote", trained.better, "data=digits", *GATES],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.wait(120) == -signal.SIGKILL, f"{moment} never came"
    assert champion(local) in (1, 2)

    registry = Registry(open_store(local), MODEL)
    with alone(registry, wait=False):
        pass
    entries = registry.ledger.entries()
    assert not any(entry.is_open for entry in entries)
    assert ledger.champion_of(entries) == champion(local)
    assert not any(entry.outcome is Outcome.moved for entry in entries)

    result = call(local, trained.better)
    assert (result.version, champion(local)) == (2, 2)
    history = read_history(registry)
    assert history.budget is not None
    assert len(history.budget.spent) == 1
    assert aliases(local) == {"champion": 2}
    assert set(tagged(local).values()) == {f"{MODEL}@champion"}
    assert MlflowClient(local).get_model_version(MODEL, "2").tags["decision"] == "promoted"


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "call mnist_pipeline.registry.ledger Ledger.open 1 after",
        "call mnist_pipeline.registry.ledger Ledger.decide 1 after",
        "call mnist_pipeline.tracking.registered_models RegisteredModel.point 1 after",
        "call mnist_pipeline.registry.ledger Ledger.close 1 before",
    ],
)
def test_a_killed_rollback_can_be_called_again(moment: str, local: str, trained: Trained) -> None:
    call(local, trained.weak)
    call(local, trained.better)
    child = subprocess.Popen(
        [sys.executable, KILL_AT, moment, "rollback", "data=digits", "--reason", "a try"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.wait(120) == -signal.SIGKILL, f"{moment} never came"
    registry = Registry(open_store(local), MODEL)
    with alone(registry, wait=False):
        pass
    assert not any(entry.is_open for entry in registry.ledger.entries())
    assert ledger.champion_of(registry.ledger.entries()) == champion(local)
    if champion(local) == 2:
        rollback(open_store(local), where(local), to=None, reason="once more")
    assert champion(local) == 1
    assert not any(entry.outcome is Outcome.moved for entry in registry.ledger.entries())


def test_ctrl_c_closes_the_entry(local: str, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    call(local, trained.weak)

    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_pipeline.tracking.registered_models.RegisteredModel.register", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(local, trained.better)
    entry = Registry(open_store(local), MODEL).ledger.entries()[-1]
    assert (entry.outcome, entry.reason, entry.is_open) == (Outcome.interrupted, "Ctrl-C", False)
