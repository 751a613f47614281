"""The ledger after edits, deletions and other machines."""

import json
import time

import pytest
from mlflow import MlflowClient
from registry_home import MODEL, Trained, call, champion, open_store, outcome, where

from mnist_pipeline.registry import changes, ledger
from mnist_pipeline.registry.changes import alone, carry_out, opened, settle
from mnist_pipeline.registry.history import read_history
from mnist_pipeline.registry.ledger import Decision, Outcome
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.rollback import rollback
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import RunRecord


def test_an_alias_that_was_moved_by_hand_is_entered(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    call(local, trained.equal)
    client = MlflowClient(local)
    client.set_registered_model_alias(MODEL, "champion", "2")
    registry = Registry(open_store(local), MODEL)
    settle(registry)
    settle(registry)
    entry = registry.ledger.entries()[-1]
    assert (entry.outcome, entry.champion, entry.version) == (Outcome.moved, 1, 2)
    assert len(registry.ledger.entries()) == 3
    client.delete_registered_model_alias(MODEL, "champion")
    settle(registry)
    assert registry.ledger.entries()[-1].version is None


def test_of_two_machines_the_older_entry_continues(uri: str, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    call(uri, trained.weak)
    here, there = Registry(open_store(uri), MODEL), Registry(open_store(uri), MODEL)
    there.ledger.lock_id = "of another machine"
    theirs = there.ledger.open()
    with (
        pytest.raises(UserError, match=r"another promotion or rollback is in progress since .*wait=true"),
        alone(here, wait=False),
    ):
        pass
    with pytest.raises(UserError, match="is in progress since"), opened(here, champion=1):
        pass  # it began when the other's entry was not there yet
    assert [entry.outcome for entry in here.ledger.entries()[-2:]] == [None, Outcome.interrupted]
    with pytest.raises(UserError, match="is in progress since"):
        call(uri, trained.better)
    assert champion(uri) == 1

    monkeypatch.setattr(changes, "_POLL_SEC", 0.1)
    monkeypatch.setattr(ledger, "ABANDONED_AFTER_SEC", 0.5)  # it is never heard of again
    with alone(here, wait=True):
        pass
    monkeypatch.undo()
    assert there.ledger.read(theirs).outcome is Outcome.interrupted
    assert outcome(call(uri, trained.better)) is Outcome.promoted


def test_an_entry_that_another_machine_closed_moves_nothing(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    registry = Registry(open_store(local), MODEL)
    decision = Decision(Outcome.promoted, 1, trained.weak, 2, trained.better, "a try")
    with opened(registry, champion=1) as entry_id:
        registry.ledger.interrupt(entry_id, reason="taken for abandoned")
        with pytest.raises(UserError, match="closed this command's entry"):
            carry_out(registry, decision, entry_id)
    with opened(registry, champion=1) as entry_id:
        MlflowClient(local).delete_registered_model_alias(MODEL, "champion")
        with pytest.raises(UserError, match=f"the champion of {MODEL} was changed"):
            carry_out(registry, decision, entry_id)
    assert champion(local) is None


def test_entries_have_one_order_despite_wrong_clocks(
    local: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(local, trained.weak)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)  # a machine whose clock is an hour behind
    assert outcome(call(local, trained.better)) is Outcome.promoted
    monkeypatch.undo()
    registry = Registry(open_store(local), MODEL)
    settle(registry)
    assert [entry.version for entry in registry.ledger.entries()] == [1, 2]


@pytest.mark.slow
def test_deletions_in_mlflow_stop_nothing(local: str, trained: Trained) -> None:
    client = MlflowClient(local)
    call(local, trained.weak)
    call(local, trained.better)
    rollback(open_store(local), where(local), to=None, reason="bad")
    client.delete_model_version(MODEL, "2")
    assert call(local, None).decision is None  # the run was rolled back from, its version is gone
    client.delete_run(Registry(open_store(local), MODEL).ledger.entries()[-1].id)  # an entry: it still counts
    with pytest.raises(UserError, match="no earlier champion"):
        rollback(open_store(local), where(local), to=2, reason="back")

    client.delete_registered_model(MODEL)
    made_anew = call(local, trained.weak)
    assert (made_anew.version, outcome(made_anew), champion(local)) == (1, Outcome.promoted, 1)
    equal = call(local, trained.equal)  # a new version 2: the verdict of the old one is not its own
    assert (equal.version, outcome(equal)) == (2, Outcome.refused)
    told = [entry.outcome for entry in Registry(open_store(local), MODEL).ledger.entries()]
    assert told[-4:] == [Outcome.rolled_back, Outcome.moved, Outcome.promoted, Outcome.refused]

    client.delete_run(trained.better)
    with pytest.raises(UserError, match="was deleted: restore it"):
        call(local, trained.better)


def test_a_lost_champion_can_be_brought_back(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    call(local, trained.better)
    client = MlflowClient(local)
    client.delete_model_version(MODEL, "2")
    assert champion(local) is None
    back = rollback(open_store(local), where(local), to=None, reason="the champion was deleted")
    assert (back.champion, back.version, champion(local)) == (None, 1, 1)


def test_a_champion_without_a_run_can_be_replaced(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    client = MlflowClient(local)
    model_id = client.get_model_version(MODEL, "1").source.removeprefix("models:/")
    by_hand = client.create_model_version(MODEL, source=client.get_logged_model(model_id).artifact_location)
    client.set_registered_model_alias(MODEL, "champion", by_hand.version)
    for _ in range(2):
        with pytest.raises(UserError, match=f"version 2 of {MODEL} did not come from a run"):
            call(local, trained.better)
    registry = Registry(open_store(local), MODEL)
    assert [entry.outcome for entry in registry.ledger.entries()] == [Outcome.promoted, Outcome.moved]
    assert read_history(registry).champion == 2
    assert rollback(open_store(local), where(local), to=None, reason="back").version == 1


def test_an_entry_that_was_edited_is_named(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    (entry,) = Registry(open_store(local), MODEL).ledger.entries()
    MlflowClient(local).set_tag(entry.id, "ledger.outcome", "something else")
    with pytest.raises(UserError, match=f"the ledger's entry {entry.id} cannot be read"):
        call(local, trained.better)


SPENT = {
    "champion": "a", "challenger": "b", "test_digest": "d", "number": 1, "level": 0.03, "alpha": 0.05, "p_value": 0.5,
    "comparison": {"num_images": 9, "num_gained": 1, "num_lost": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        "text", '"text"', "[1]", "{}", "[" * 100_000,
        *(json.dumps(SPENT | one) for one in (
            {"number": 0}, {"number": "many"}, {"number": 10**300}, {"level": -1}, {"level": None}, {"alpha": "much"},
            {"comparison": [1]}, {"comparison": {"num_images": 1, "num_gained": 1, "num_lost": 1}},
            {"comparison": {"num_images": 9, "num_gained": "x", "num_lost": 1}},
        )),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_comparison_that_was_edited_is_named(damage: str) -> None:
    tags = {"ledger.comparison": damage}
    entry = RunRecord("e", "1", "entry", "FINISHED", "", 0, {}, {}, tags, read_bytes=lambda path: b"")
    with pytest.raises(UserError, match="the ledger's entry e cannot be read"):
        ledger._read(entry)


def test_a_comparison_is_read_as_it_was_written() -> None:
    spent = ledger._read_spent(json.dumps(SPENT))
    assert json.loads(ledger._write_spent(spent)) == SPENT | {"p_value": spent.comparison.p_value}
