"""Promotion, rollback and history on real stores: the local one and a real server."""

import hashlib
import json
from pathlib import Path

import keras
import mlflow
import pandas as pd
import pytest
from conftest import Cli, digits_config
from mlflow import MlflowClient
from registry_home import (
    BETTER,
    BOUNDS,
    GATES,
    MODEL,
    Trained,
    aliases,
    call,
    champion,
    open_store,
    outcome,
    train,
    verdicts,
    where,
)

from mnist_pipeline.cli.history import history as run_history
from mnist_pipeline.cli.rollback import rollback as run_rollback
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.registry import settings
from mnist_pipeline.registry.changes import alone
from mnist_pipeline.registry.history import read_history
from mnist_pipeline.registry.ledger import Ledger, Outcome
from mnist_pipeline.registry.promote import promote
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.rollback import rollback
from mnist_pipeline.registry.settings import PromoteConfig, RegistryConfig
from mnist_pipeline.stats import level
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import integrity
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.record import Artifact, Tag


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
    assert client.get_run(trained.equal).info.run_name == f"{name}-2"
    client.set_tag(trained.equal, "mlflow.runName", name)  # as earlier versions named it
    with pytest.raises(UserError, match=f"{name}: 2 runs have this name"):
        call(local, name)
    with pytest.raises(UserError, match=f"did you mean {name}"):
        call(local, name[:-1])
    client.set_terminated(trained.equal, "FAILED")
    with pytest.raises(UserError, match="is a FAILED run of kind train"):
        call(local, trained.equal)
    client.delete_run(trained.better)
    assert call(local, None).candidate.run.run_id == trained.weak


@pytest.mark.slow
def test_a_run_without_a_validation_split_must_be_named(local: str) -> None:
    run = train(["data=digits", "data.validation_size=0", "train.num_epochs=1", "tracking.experiment=all"])
    only = RegistryConfig(digits_config(), TrackingConfig(uri=Address(local), experiment="all"), wait=False)
    with pytest.raises(UserError, match="none of the 1 runs has a validation split"):
        promote(open_store(local), only, BOUNDS, named=None, is_dry_run=False)
    assert outcome(promote(open_store(local), only, BOUNDS, named=run, is_dry_run=False)) is Outcome.promoted


@pytest.mark.slow
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


def test_the_commands_report_their_result(
    cli: Cli, local: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    call(local, trained.weak)
    refused = cli("promote", trained.equal, "data=digits", *GATES)
    assert refused.returncode == 3
    assert "p = 1 (0 gained, 0 lost)" in refused.stdout
    assert "refused: the champion stays version 1" in refused.stdout
    assert refused.stderr.splitlines()[-1].startswith("refused: digits-dense-w8-e2-s0-2 does not pass")
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
    assert "scored runs         3 on this test split" in told


def test_the_hint_where_nothing_can_be_promoted_fits_what_the_store_holds(local: str, home: Path) -> None:
    def hint(data: str) -> str:
        asked = settings.read([f"data.name={data}", f"tracking.uri={local}"])
        with pytest.raises(UserError) as caught:
            promote(open_store(local), asked, BOUNDS, named=None, is_dry_run=True)
        return str(caught.value)

    assert hint("mnist").endswith("the runs here are of digits: mnist-pipeline promote data=digits")
    assert hint("pets").endswith("the runs here are of digits: mnist-pipeline promote data=digits")
    client = MlflowClient(local)
    for run in client.search_runs(["1"]):
        client.set_tag(run.info.run_id, "data.fallback", "digits")
        client.set_tag(run.info.run_id, "data.requested", "mnist")
    assert "mnist-pipeline train data=digits, then mnist-pipeline promote data=digits" in hint("mnist")
    assert hint("pets").endswith("train one (mnist-pipeline train)")


def test_without_a_champion_that_of_other_data_is_named(cli: Cli, local: str, trained: Trained) -> None:
    assert "promote a run first (mnist-pipeline promote)" in cli("history", "data=mnist").stderr
    call(local, trained.weak)
    for words in (["history"], ["predict", "x.png"]):
        found = cli(*words, "data=mnist")
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.endswith("digits-classifier has one: data=digits\n")


@pytest.mark.slow
def test_the_twin_of_a_rolled_back_model_is_not_proposed_again(local: str, trained: Trained) -> None:
    call(local, trained.weak)
    call(local, trained.better)
    run_rollback(["data=digits", "--reason", "sevens"])
    twin = train([*BETTER, "force=true"])
    client = MlflowClient(local)
    digests = {client.get_run(run).data.tags["result.digest"] for run in (twin, trained.better)}
    assert len(digests) == 1
    assert call(local, None).candidate.run.run_id == trained.weak  # the champion already
    assert outcome(call(local, twin)) is Outcome.promoted  # by name


def test_a_rollback_that_cannot_be_examined_leaves_no_line(
    local: str, trained: Trained, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(local, trained.weak)
    call(local, trained.better)
    before = Ledger(open_store(local), MODEL).entries()

    def fail(*arguments: object) -> None:
        raise UserError("the test split is not here")

    monkeypatch.setattr("mnist_pipeline.registry.evidence.examine", fail)
    for _ in range(2):
        with pytest.raises(UserError, match="the test split is not here"):
            run_rollback(["data=digits", "--reason", "sevens"])
    with pytest.raises(UserError, match="the test split is not here"):
        call(local, trained.equal)
    assert Ledger(open_store(local), MODEL).entries() == before
    assert "closed" not in caplog.text
