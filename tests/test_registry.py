"""Promotion, rollback and history on real stores: the local one and a real server."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import pandas as pd
import pytest
from conftest import Cli, command, server
from mlflow import MlflowClient

from mnist_pipeline.cli.history import history as run_history
from mnist_pipeline.cli.rollback import rollback as run_rollback
from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.registry import changes, ledger
from mnist_pipeline.registry.changes import alone, carry_out, opened, settle
from mnist_pipeline.registry.history import read_history
from mnist_pipeline.registry.ledger import Decision, Outcome
from mnist_pipeline.registry.promote import Promotion, promote
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.rollback import rollback
from mnist_pipeline.registry.settings import PromoteConfig, RegistryConfig
from mnist_pipeline.stats import level
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import integrity, store
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Artifact, RunRecord, Tag

MODEL = "digits-classifier"
WEAK = ["data=digits", "model.hidden_width=8", "train.num_epochs=2", "force=true"]
BETTER = ["data=digits", "model.hidden_width=64", "train.num_epochs=8"]
BOUNDS = PromoteConfig(alpha=0.05, min_test_accuracy=0.1, max_model_bytes=10_000_000, max_recall_drop=0.5)
KILL_AT = str(Path(__file__).with_name("kill_at.py"))
GATES = ["promote.min_test_accuracy=0.1", "promote.max_recall_drop=0.5"]


@dataclass(frozen=True)
class Trained:
    database: Path
    weak: str
    equal: str
    better: str


def train(overrides: list[str]) -> str:
    asked = prepare(compose.compose(overrides), overrides)
    return run.execute(asked, MlflowTracker(asked.config.tracking)).run_id


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Trained]:
    """Three runs on digits: a weak one, its equal, a better one. Each test works on a copy of their store."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for whoever comes after
        weak, equal, better = train(WEAK), train(WEAK), train(BETTER)
        yield Trained(folder / "mlruns" / "mlflow.db", weak, equal, better)


@pytest.fixture
def database(home: Path, trained: Trained) -> Path:
    (home / "mlruns" / "artifacts").symlink_to(trained.database.parent / "artifacts")
    return Path(shutil.copy(trained.database, home / "mlruns" / "mlflow.db"))


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, database: Path, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield store.sqlite_uri(database)
        return
    with server(database, tmp_path / "server_artifacts") as address:
        yield address


@pytest.fixture
def local(database: Path) -> str:
    return store.sqlite_uri(database)


def open_store(uri: str) -> MlflowStore:
    return MlflowStore(TrackingConfig(uri=Address(uri), experiment="digits"))


def where(uri: str, *, wait: bool = False) -> RegistryConfig:
    return RegistryConfig("digits", TrackingConfig(uri=Address(uri), experiment="digits"), wait)


def call(uri: str, run: str | None, bounds: PromoteConfig = BOUNDS, *, is_dry_run: bool = False) -> Promotion:
    return promote(open_store(uri), where(uri), bounds, named=run, is_dry_run=is_dry_run)


def aliases(uri: str) -> dict[str, int]:
    named = MlflowClient(uri).get_registered_model(MODEL).aliases
    return {alias: int(version) for alias, version in named.items()}


def champion(uri: str) -> int | None:
    return aliases(uri).get("champion")


def outcome(result: Promotion) -> Outcome | None:
    return result.decision.outcome if result.decision else None


def verdicts(result: Promotion) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in result.gates}


def test_the_story_of_a_champion(uri: str, trained: Trained) -> None:
    first = call(uri, trained.weak)
    assert (outcome(first), champion(uri)) == (Outcome.promoted, 1), first.gates
    assert set(verdicts(first).values()) == {"passed"}
    again = call(uri, trained.weak)
    assert (again.decision, again.version) == (None, 1)

    equal = call(uri, trained.equal)
    assert (outcome(equal), champion(uri)) == (Outcome.refused, 1)
    assert verdicts(equal)["superiority"] == "refused"
    assert equal.decision is not None
    assert equal.decision.spent is not None
    assert equal.decision.spent.comparison.p_value == 1
    assert aliases(uri) == {"champion": 1, "challenger": 2}

    repeated = call(uri, trained.equal)
    assert repeated.decision is not None
    assert (repeated.decision.is_new, repeated.version) == (False, 2)
    assert "the verdict of comparison 1" in repeated.decision.reason

    better = call(uri, None)  # the best by validation accuracy
    assert (outcome(better), champion(uri)) == (Outcome.promoted, 3)
    assert better.candidate.run.run_id == trained.better
    assert better.decision is not None
    assert better.decision.spent is not None
    assert better.decision.spent.level == pytest.approx(level(2, 0.05))
    assert aliases(uri) == {"champion": 3}

    back = rollback(open_store(uri), where(uri), to=None, reason="users complain")
    assert (back.outcome, back.champion, back.version, champion(uri)) == (Outcome.rolled_back, 3, 1, 1)
    by_itself = call(uri, None)  # the better run was rolled back from: it does not return unless it is named
    assert (by_itself.candidate.run.run_id, by_itself.decision) == (trained.weak, None)
    with pytest.raises(UserError, match="no previous champion that is left: give --to 3"):
        rollback(open_store(uri), where(uri), to=None, reason="more")
    with pytest.raises(UserError, match=r"--to 2: .* give 3"):
        rollback(open_store(uri), where(uri), to=2, reason="more")
    assert outcome(call(uri, trained.better)) is Outcome.promoted  # by its earlier verdict: nothing is spent

    history = read_history(Registry(open_store(uri), MODEL))
    told = [(entry.outcome, entry.champion, entry.version) for entry in history.entries]
    assert told == [
        (Outcome.promoted, None, 1),
        (Outcome.refused, 1, 2),
        (Outcome.refused, 1, 2),
        (Outcome.promoted, 1, 3),
        (Outcome.rolled_back, 3, 1),
        (Outcome.promoted, 1, 3),
    ]
    assert history.entries[4].reason == "users complain"
    assert not any(entry.is_open for entry in history.entries)
    assert history.budget is not None
    assert [spent.number for spent in history.budget.spent] == [1, 2]
    assert (history.champion, history.num_images, history.num_scored_runs) == (3, 360, 3)


def tagged(uri: str) -> dict[str, str]:
    """Return the tag of every run that has it, by the run's id."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, "tags.alias LIKE '%'")
    return {run.info.run_id: run.data.tags["alias"] for run in found}


def test_the_runs_of_champion_and_challenger_are_tagged(uri: str, trained: Trained) -> None:
    weak, equal, better = (call(uri, run).candidate.run.run_id for run in (trained.weak, trained.equal, trained.better))
    assert tagged(uri) == {better: f"{MODEL}@champion"}
    call(uri, trained.equal)
    assert tagged(uri) == {better: f"{MODEL}@champion", equal: f"{MODEL}@challenger"}
    rollback(open_store(uri), where(uri), to=1, reason="test")
    assert tagged(uri) == {weak: f"{MODEL}@champion", equal: f"{MODEL}@challenger"}
    registry = Registry(open_store(uri), MODEL)
    registry.model.point("champion", 3)  # by hand
    with alone(registry, wait=False):
        pass
    assert tagged(uri) == {better: f"{MODEL}@champion", equal: f"{MODEL}@challenger"}


def test_the_decision_can_be_read_in_mlflow(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    call(local, trained.equal)
    client = MlflowClient(local)
    version = client.get_model_version(MODEL, "2")
    assert version.tags["decision"] == "refused"
    assert version.tags["p_value"] == "1"
    assert "Refused on" in version.description
    assert "superiority: p = 1" in version.description
    assert "Champion: **version 1**" in client.get_registered_model(MODEL).description
    entry = client.get_run(version.tags["ledger.entry"])
    assert entry.info.status == "FINISHED"
    assert entry.data.tags["kind"] == "promotion"
    assert entry.data.metrics["comparison/p_value"] == 1
    assert "| superiority | p = 1 (0 gained, 0 lost) |" in entry.data.tags["mlflow.note.content"]
    table = json.loads(mlflow.artifacts.load_text(f"{entry.info.artifact_uri}/promotion/gates.json"))
    assert [row[table["columns"].index("verdict")] for row in table["data"]] == ["passed"] * 8 + ["refused"]


def test_a_dry_run_writes_nothing(local: str, trained: Trained, database: Path) -> None:
    before = database.read_bytes()
    result = call(local, None, is_dry_run=True)
    assert result.candidate.run.run_id == trained.better
    assert set(verdicts(result)) == {"data", "whole", "predictions", "signature", "test accuracy", "size"}
    assert database.read_bytes() == before


def test_a_run_that_cannot_be_a_candidate_is_reported(local: str, trained: Trained) -> None:
    client = MlflowClient(local)
    name = client.get_run(trained.weak).info.run_name
    with pytest.raises(UserError, match=f"{name}: 2 runs have this name"):
        call(local, name)
    with pytest.raises(UserError, match=f"did you mean {name}"):
        call(local, name[:-1])
    client.set_terminated(trained.equal, "FAILED")
    with pytest.raises(UserError, match="is a FAILED run of kind train"):
        call(local, trained.equal)
    client.delete_run(trained.better)
    assert call(local, None).candidate.run.run_id == trained.weak


def test_a_run_without_a_validation_split_must_be_named(local: str) -> None:
    run = train(["data=digits", "data.validation_size=0", "train.num_epochs=1", "tracking.experiment=all"])
    only = RegistryConfig("digits", TrackingConfig(uri=Address(local), experiment="all"), wait=False)
    with pytest.raises(UserError, match="none of the 1 runs has a validation split"):
        promote(open_store(local), only, BOUNDS, named=None, is_dry_run=False)
    assert outcome(promote(open_store(local), only, BOUNDS, named=run, is_dry_run=False)) is Outcome.promoted


def test_the_best_is_looked_for_on_the_champions_split_alone(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    other = train([*BETTER, "data.split_seed=5", "train.num_epochs=9"])
    assert MlflowClient(local).get_run(other).data.metrics["validation/accuracy"] > 0.9
    result = call(local, None)
    assert result.candidate.run.run_id == trained.better
    assert "of 3 with data.validation_size=300, data.split_seed=0" in result.candidate.why


def test_a_different_alpha_is_refused_once_it_is_fixed(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    with pytest.raises(ConfigError, match=r"promote.alpha=0.1: it is fixed at 0.05"):
        call(local, trained.equal, PromoteConfig(0.1, 0.1, 10_000_000, 0.5))
    assert aliases(local) == {"champion": 1}


def test_a_run_on_other_data_or_after_a_fallback_is_refused_unspent(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    client = MlflowClient(local)
    client.set_tag(trained.better, "data.digest", "other")
    other = call(local, trained.better)
    assert verdicts(other)["same data"] == "refused"
    assert verdicts(other)["superiority"] == "not reached"
    client.set_tag(trained.equal, "data.fallback", "digits")
    fallen = call(local, trained.equal)
    assert verdicts(fallen)["data"] == "refused"
    assert verdicts(fallen)["whole"] == "not reached"
    history = read_history(Registry(open_store(local), MODEL))
    assert history.budget is not None
    assert history.budget.spent == ()
    assert champion(local) == 1


def reseal(uri: str, run_id: str) -> None:
    """Log the run's files as they are now, as someone who can write to both stores could."""
    opened = open_store(uri)
    run = opened.client.get_run(run_id)
    folder = ArtifactFolder(run.info.artifact_uri, tracking_uri=uri)
    logged, problem = integrity.read_list(folder.read, run.data.tags)
    assert logged is not None, problem
    location = opened.client.get_logged_model(run.outputs.model_outputs[0].model_id).artifact_location
    model = ArtifactFolder(location, tracking_uri=uri)
    content = integrity.write_seals(
        integrity.Seals(
            run={path: integrity.seal(folder.read(path)) for path in logged.run},
            model={path: integrity.seal(model.read(path)) for path in logged.model},
        )
    )
    (Path(mlflow.artifacts.download_artifacts(run.info.artifact_uri)) / Artifact.FILES).write_bytes(content)
    opened.client.set_tag(run_id, Tag.FILES_DIGEST, hashlib.sha256(content).hexdigest())


def test_a_model_that_is_damaged_or_was_swapped_is_refused(local: str, trained: Trained) -> None:
    run = train(["data=digits", "model.hidden_width=4", "train.num_epochs=1"])
    client = MlflowClient(local)
    (model,) = client.search_logged_models(
        [client.get_run(run).info.experiment_id], filter_string=f"source_run_id = '{run}'"
    )
    weights = Path(mlflow.artifacts.download_artifacts(model.artifact_location)) / "data/model.keras"
    whole = weights.read_bytes()

    loaded = keras.models.load_model(weights)
    loaded.get_layer("hidden").kernel.assign(loaded.get_layer("hidden").kernel * 2)
    loaded.save(weights)
    weak_bounds = PromoteConfig(0.05, 0.0, 10_000_000, 0.5)
    swapped = call(local, run, weak_bounds)
    assert (outcome(swapped), verdicts(swapped)["whole"]) == (Outcome.refused, "refused")
    reseal(local, run)
    resealed = verdicts(call(local, run, weak_bounds))
    assert [name for name, verdict in resealed.items() if verdict == "refused"] == ["predictions"]
    for damaged in (whole[:1000] + bytes(len(whole) - 1000), whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:]):
        weights.write_bytes(damaged)
        assert verdicts(call(local, run, weak_bounds))["whole"] == "refused"
    weights.write_bytes(whole)
    reseal(local, run)
    assert outcome(call(local, run, weak_bounds)) is Outcome.promoted

    weights.write_bytes(whole[:1000] + bytes(len(whole) - 1000))
    assert outcome(call(local, trained.better)) is Outcome.promoted  # only the champion's predictions are needed
    back = rollback(open_store(local), where(local), to=None, reason="try")
    assert (back.outcome, champion(local)) == (Outcome.refused, 2)


def test_predictions_that_were_edited_are_refused(local: str) -> None:
    run = train(["data=digits", "model.hidden_width=5", "train.num_epochs=1"])
    folder = MlflowClient(local).get_run(run).info.artifact_uri
    path = Path(mlflow.artifacts.download_artifacts(folder)) / "evaluate/predictions.parquet"
    table = pd.read_parquet(path)
    assert (table["predicted"] != table["label"]).any()
    table.assign(predicted=table["label"]).to_parquet(path, index=False)
    assert verdicts(call(local, run))["whole"] == "refused"
    reseal(local, run)
    verdict = verdicts(call(local, run))
    assert (verdict["whole"], verdict["predictions"]) == ("passed", "refused")


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

    monkeypatch.setattr("mnist_pipeline.registry.promote.judge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(local, trained.better)
    entry = Registry(open_store(local), MODEL).ledger.entries()[-1]
    assert (entry.outcome, entry.reason, entry.is_open) == (Outcome.interrupted, "Ctrl-C", False)


def test_the_commands_report_their_result(
    cli: Cli, local: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    call(local, trained.weak)
    refused = cli("promote", trained.equal, "data=digits", *GATES)
    assert refused.returncode == 3
    assert "p = 1 (0 gained, 0 lost)" in refused.stdout
    assert "refused: the champion stays version 1" in refused.stdout
    assert refused.stderr.splitlines()[-1].startswith("refused: digits-w8-d0.2-e2-s0 does not pass")
    promoted = cli("promote", trained.better, "data=digits", *GATES)
    assert promoted.returncode == 0
    version = MlflowClient(local).get_model_version(MODEL, "3")
    assert version.tags["model_card"].endswith("/artifacts/report/report.html")
    assert "[Model card](#/experiments/" in version.description
    run_rollback(["data=digits", "--reason", "for [a] test [/b]"])
    assert "rolled back: version 1 is the champion (before: version 3)" in capsys.readouterr().out
    run_history(["data=digits"])
    told = capsys.readouterr().out
    assert told.count("promoted") == 2
    assert "for [a] test [/b]" in told
    assert "scored runs         3 ever" in told
