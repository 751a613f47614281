"""Models and runs that were tampered with: nothing of theirs is executed, and a damaged champion has a way on."""

import contextlib
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import command
from damaged_home import (
    FIRST,
    MODEL,
    SECOND,
    Home,
    add_a_lambda,
    add_pickle,
    bomb_the_description,
    change_the_requirements,
    flip_a_bit,
    forget_the_digests,
    name_a_loader,
    name_a_loader_alone,
    remove_the_example,
    train,
)
from mlflow import MlflowClient
from test_plain_yaml import BOMB

from mnist_pipeline.cli.diff import diff
from mnist_pipeline.cli.report import report
from mnist_pipeline.registry.history import read_history
from mnist_pipeline.registry.ledger import Outcome
from mnist_pipeline.registry.promote import Promotion
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.rollback import NO_VERSION, rollback
from mnist_pipeline.serving import champion
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import integrity, runs, sqlite_store


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Home:
    folder = tmp_path_factory.mktemp("template")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = Home(folder, train(FIRST), train(SECOND))
        for run_id in (made.first, made.second):
            assert made.promote(run_id).version == made.champion()
    return made


@pytest.fixture
def made(template: Home, home: Path) -> Home:
    """A copy of the store, whose artifacts each test may spoil."""
    shutil.rmtree(home)
    shutil.copytree(template.folder, home)
    sqlite_store.repair(home / "mlruns" / "mlflow.db")
    return Home(home, template.first, template.second)


TAMPERINGS = [
    add_pickle, name_a_loader, name_a_loader_alone, add_a_lambda, flip_a_bit, change_the_requirements,
    remove_the_example, bomb_the_description,
]  # fmt: skip


@pytest.mark.parametrize("is_old", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sealed", "of 0.1"])
def test_a_tampered_model_is_refused_and_runs_no_code(made: Home, tmp_path: Path, is_old: bool) -> None:
    canary = tmp_path / "was here"
    folders = [made.model(made.first), made.model(made.second)]
    if is_old:
        for run_id in (made.first, made.second):
            forget_the_digests(made, run_id)
        assert champion.load(made.store, MODEL).version == 2
        assert not integrity.find_damage(made.store, made.second)
    for tamper in TAMPERINGS:
        for folder in folders:
            shutil.copytree(folder, tmp_path / "kept" / folder.parent.name)
            tamper(folder, canary)
        is_seen = not is_old or tamper is not change_the_requirements  # to the same size
        with contextlib.nullcontext() if not is_seen else pytest.raises(UserError, match="damaged"):
            champion.load(made.store, MODEL)  # predict and serve
        if is_seen:
            dry = made.promote(made.first, is_dry_run=True)
            assert [gate.is_passed for gate in dry.gates if gate.name == "whole"] == [False], tamper
            assert outcome(made.promote(made.first)) is Outcome.refused
            back = rollback(made.store, made.where, to=1, reason="try")
            assert (back.outcome, made.champion()) == (Outcome.refused, 2)
        assert not canary.exists(), tamper
        for folder in folders:
            shutil.rmtree(folder)
            shutil.move(tmp_path / "kept" / folder.parent.name, folder)
    assert champion.load(made.store, MODEL).version == 2


def outcome(result: Promotion) -> Outcome | None:
    return result.decision.outcome if result.decision else None


@pytest.mark.parametrize("path", ["evaluate/predictions.parquet", "config/config.yaml", "environment/files.json"])
def test_a_file_of_the_run_that_was_changed_is_named(made: Home, path: str) -> None:
    file = made.run(made.first) / path
    content = file.read_bytes()
    file.write_bytes(content[:-2] + b"\0" + content[-1:])
    assert integrity.find_damage(made.store, made.first) == (f"changed: {path}",)
    assert train(FIRST) != made.first  # it does not count as done any more


def test_a_file_that_the_run_did_not_write_is_named(made: Home) -> None:
    (made.run(made.first) / "evaluate" / "more.txt").write_text("x")
    assert integrity.find_damage(made.store, made.first) == ("extra: evaluate/more.txt",)


def test_loading_a_model_with_mlflow_is_not_damage(made: Home) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", made.store.uri)
        mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    assert (made.model(made.second) / integrity.WRITTEN_BY_LOADING).exists()
    assert integrity.find_damage(made.store, made.second) == ()
    assert champion.load(made.store, MODEL).version == 2


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A web server that notes what it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_logged_configuration_is_not_resolved_and_its_addresses_are_not_fetched(
    made: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cret")
    forget_the_digests(made, made.first)
    with listening() as (address, asked):
        config = made.run(made.first) / "config" / "config.yaml"
        secret = "${oc.env:AWS_SECRET_ACCESS_KEY}"
        text = f"data:\n  name: mnist\n  npz_url: {address}/{secret}\n  idx_url: {address}/{secret}\n"
        config.write_text(text.ljust(config.stat().st_size)[: config.stat().st_size])
        (made.run(made.first) / "config" / "overrides.yaml").write_text(f"- model.hidden_width={secret}\n")
        made.promote(made.first)
        uri = f"tracking.uri={made.store.uri}"
        with contextlib.suppress(UserError):
            diff([made.first, made.second, uri])
        with contextlib.suppress(UserError):
            report([made.first, uri])
        assert asked == []
    printed = capsys.readouterr()
    assert "S3cret" not in printed.out + printed.err
    written = [path for path in made.folder.rglob("*") if path.is_file() and b"S3cret" in path.read_bytes()]
    assert written == []


def test_a_yaml_bomb_hangs_neither_diff_nor_report(made: Home) -> None:
    (made.run(made.first) / "config" / "overrides.yaml").write_text(BOMB)
    for call in (diff, report):
        words = [made.first, made.second][: 2 if call is diff else 1]
        with contextlib.suppress(UserError):
            call([*words, f"tracking.uri={made.store.uri}"])


@pytest.mark.slow
def test_the_same_result_replaces_its_damaged_twin_without_a_comparison(made: Home) -> None:
    flip_a_bit(made.model(made.second), made.folder)
    with pytest.raises(UserError, match="train the same run again and promote it"):
        champion.load(made.store, MODEL)
    with pytest.raises(UserError, match="train the same run again"):
        made.promote(made.second)
    spent = len(read_history(Registry(made.store, MODEL)).entries)
    twin = train(SECOND)
    assert twin != made.second
    result = made.promote(None)  # the best by validation accuracy; the damaged one is passed over
    assert (result.candidate.run.run_id, outcome(result), made.champion()) == (twin, Outcome.promoted, 3)
    assert result.decision is not None
    assert result.decision.spent is None
    assert champion.load(made.store, MODEL).version == 3
    history = read_history(Registry(made.store, MODEL))
    assert [entry.spent for entry in history.entries[spent:]] == [None] * (len(history.entries) - spent)


@pytest.mark.slow
def test_a_twin_of_a_whole_champion_is_tested_as_before(made: Home) -> None:
    twin = train([*SECOND, "force=true"])
    result = made.promote(twin)
    assert (outcome(result), made.champion()) == (Outcome.refused, 2)
    assert result.decision is not None
    assert result.decision.spent is not None


def test_only_a_damaged_champion_can_be_removed(made: Home) -> None:
    with pytest.raises(UserError, match="version 2 of digits-classifier is not damaged"):
        rollback(made.store, made.where, to=NO_VERSION, reason="try")
    shutil.rmtree(made.run(made.second))
    decision = rollback(made.store, made.where, to=NO_VERSION, reason="its files are gone")
    assert (decision.outcome, decision.version, made.champion()) == (Outcome.rolled_back, None, None)
    assert outcome(made.promote(made.first)) is Outcome.promoted
    assert [entry.version for entry in read_history(Registry(made.store, MODEL)).entries] == [1, 2, None, 1]


@pytest.mark.slow
def test_champions_whose_runs_are_gone_can_be_replaced(made: Home) -> None:
    client: MlflowClient = made.store.client
    for run_id in (made.first, made.second):
        client.delete_run(run_id)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": made.store.uri}
    subprocess.run(
        [str(Path(command()[0]).with_name("mlflow")), "gc", "--backend-store-uri", made.store.uri],
        env=environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert runs.get(made.store, made.second) is None
    new = train([*FIRST, "train.seed=5"])
    with pytest.raises(UserError, match="--to none"):
        made.promote(new)
    with pytest.raises(UserError, match="--to none"):
        rollback(made.store, made.where, to=1, reason="try")
    rollback(made.store, made.where, to=NO_VERSION, reason="all runs are gone")
    assert outcome(made.promote(new)) is Outcome.promoted


@pytest.mark.slow
def test_a_full_temporary_folder_is_not_a_verdict(made: Home, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("to mount a small file system takes root")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        script = 'mount -t tmpfs -o size=40k tmpfs "$TMPDIR" && exec "$@"'
        arguments = ["unshare", "--mount", "sh", "-c", script, "sh", *command(*words)]
        environment = {**os.environ, "TMPDIR": str(small)}
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)

    for words in (
        ["promote", made.first, "data=digits", "promote.min_test_accuracy=0.1"],
        ["rollback", "data=digits", "--reason", "try"],
        ["predict", "data=digits", str(tmp_path / "x.npz")],
    ):
        done = run(*words)
        assert done.returncode == 1, done
        assert "No space left on device" in done.stderr
        assert "roll back" not in done.stderr  # the champion is whole
        assert "Traceback" not in done.stderr
    outcomes = [entry.outcome for entry in Registry(made.store, MODEL).ledger.entries()]
    assert outcomes == [Outcome.promoted, Outcome.promoted]  # they fail before they write anything
