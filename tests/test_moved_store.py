"""A store that was moved or copied: no command writes to the old place, and `doctor --fix` makes the paths follow."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from mlflow import MlflowClient
from mlflow.entities import Run

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.serving import champion
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import integrity, sqlite_store, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore

KILL_AT = str(Path(__file__).with_name("kill_at.py"))
# The experiment 0 is MLflow's own; here it is from where the empty store was made.
LOCATIONS = (
    "SELECT artifact_location FROM experiments WHERE experiment_id > 0 UNION SELECT artifact_uri FROM runs UNION "
    "SELECT artifact_location FROM logged_models UNION SELECT storage_location FROM model_versions"
)


def database_in(home: Path) -> Path:
    return home / "mlruns" / "mlflow.db"


def locations(home: Path) -> set[str]:
    with sqlite3.connect(database_in(home)) as connection:
        found = {location for (location,) in connection.execute(LOCATIONS)}
    connection.close()
    return found


def lie_under(home: Path) -> bool:
    return all(location.startswith(f"{home.as_uri()}/mlruns/artifacts/") for location in locations(home))


@pytest.fixture
def copied(champion_home: Path, tmp_path: Path) -> Path:
    """A home with a champion that was copied from another one, which is still there."""
    return Path(shutil.copytree(champion_home, tmp_path / "first place"))


@pytest.fixture
def moved(copied: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A home with a champion that was moved, and the place that it was moved from."""
    sqlite_store.repair(database_in(copied))
    assert lie_under(copied)
    return copied.rename(tmp_path / "second place"), copied


COMMANDS = ("train preset=smoke", "promote data=digits", "predict . data=digits", "compare", "ui --port=0")
SLOW_COMMANDS = (
    "sweep preset=smoke",
    "rollback --reason=x data=digits",
    "history data=digits",
    "serve --port=0 data=digits",
    "diff a b",
    "report champion data=digits",
)


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW_COMMANDS)]
)
def test_every_command_reports_a_moved_store_in_one_line(command: str, moved: tuple[Path, Path], cli: Cli) -> None:
    new, old = moved
    before = locations(new)
    result = cli(*command.split(), MNIST_PIPELINE_HOME=str(new))
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert str(old / "mlruns") in line
    assert str(new / "mlruns") in line
    assert "mnist-pipeline doctor --fix, " in line
    assert not old.exists()
    assert locations(new) == before


def test_a_moved_store_is_reported_before_heavy_imports(moved: tuple[Path, Path], home: Path) -> None:
    code = (
        "import sys; from mnist_pipeline import cli; sys.argv[1:] = ['train', 'preset=smoke']; code = cli.main();"
        "assert code == 1; assert not {'tensorflow', 'mlflow', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MNIST_PIPELINE_HOME": str(moved[0])})


def test_a_store_that_was_named_is_named_again(moved: tuple[Path, Path], cli: Cli) -> None:
    uri = store.sqlite_uri(database_in(moved[0]))
    result = cli("compare", f"tracking.uri={uri}")
    assert f"mnist-pipeline doctor --fix tracking.uri={uri}, " in result.stderr
    assert cli("doctor", "--fix", f"tracking.uri={uri}").returncode == 0
    assert lie_under(moved[0])


@pytest.mark.slow
def test_after_the_repair_all_is_as_before(moved: tuple[Path, Path], cli: Cli) -> None:
    new, old = moved
    home = str(new)
    assert cli("doctor", "--fix", MNIST_PIPELINE_HOME=home).returncode == 0
    assert lie_under(new)
    repaired = database_in(new).read_bytes()
    again = cli("doctor", "--fix", MNIST_PIPELINE_HOME=home)
    assert (again.returncode, "nothing to repair" in again.stdout) == (0, True)
    assert cli("doctor", MNIST_PIPELINE_HOME=home).returncode == 0
    assert database_in(new).read_bytes() == repaired

    trained = cli("train", "-m", "data=digits", "model.hidden_width=64,8", MNIST_PIPELINE_HOME=home)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.count("done      run") == 1  # the other one is new
    client = MlflowClient(store.sqlite_uri(database_in(new)))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], "tags.kind = 'train'")
    assert len(runs) == 2
    assert all(folder_of(run).is_dir() for run in runs)
    assert lie_under(new)
    assert not old.exists()


def folder_of(run: Run) -> Path:
    folder = sqlite_store.folder_of(run.info.artifact_uri)
    assert folder is not None
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", ["promote", "report champion", "compare", "predict", "history"])
def test_every_command_works_after_the_repair(command: str, moved: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    new, old = moved
    sqlite_store.repair(database_in(new))
    if command == "predict":
        np.savez(tmp_path / "images.npz", images=np.zeros((1, 28, 28), np.uint8))
        command = f"predict {tmp_path / 'images.npz'}"
    result = cli(*command.split(), "data=digits", MNIST_PIPELINE_HOME=str(new))
    assert result.returncode == 0, result.stderr
    assert not old.exists()


def test_the_champion_of_a_moved_store_is_whole(moved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    new, _ = moved
    sqlite_store.repair(database_in(new))
    opened = MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(database_in(new))), experiment="digits"))
    loaded = champion.load(opened, "digits-classifier")
    assert loaded.version == 1
    for experiment in opened.client.search_experiments():
        for run in opened.client.search_runs([experiment.experiment_id], "tags.kind = 'train'"):
            assert not integrity.find_damage(opened, run.info.run_id)


def test_a_copy_is_distinguished_from_the_original(copied: Path, champion_home: Path) -> None:
    with pytest.raises(UserError, match="moved or copied"):
        store.check(store.sqlite_uri(database_in(copied)))
    store.check(store.sqlite_uri(database_in(champion_home)))


def test_a_link_to_the_same_folder_is_not_a_move(champion_home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(champion_home)
    store.check(store.sqlite_uri(database_in(link)))
    assert sqlite_store.repair(database_in(link)) == 0


def test_artifacts_that_were_left_behind_are_named(copied: Path, champion_home: Path) -> None:
    (lost,) = copied.rglob("evaluate/predictions.parquet")
    lost.unlink()
    before = locations(copied)
    with pytest.raises(UserError, match=r"1 files .*evaluate/predictions.parquet") as caught:
        sqlite_store.repair(database_in(copied))
    assert str(champion_home / "mlruns" / "artifacts") in str(caught.value)
    assert locations(copied) == before


def test_missing_files_do_not_stop_a_repair(moved: tuple[Path, Path]) -> None:
    shutil.rmtree(moved[0] / "mlruns" / "artifacts")
    assert sqlite_store.repair(database_in(moved[0])) > 0
    assert lie_under(moved[0])


def test_places_of_others_are_left_alone(moved: tuple[Path, Path], tmp_path: Path) -> None:
    new, old = moved
    kind = {sqlite_store.KIND_TAG: "custom_model_development"}
    theirs = {
        "cloud": "s3://bucket/artifacts/cloud",
        "server": (tmp_path / "elsewhere" / "artifacts" / "7").as_uri(),
        "hand": (tmp_path / "by hand" / "hand").as_uri(),
        "neighbour": (old / "mlruns" / "artifacts-of-others" / "x").as_uri(),
    }
    client = MlflowClient(store.sqlite_uri(database_in(new)))
    for name, location in theirs.items():
        client.create_experiment(name, artifact_location=location, tags=kind)
    sqlite_store.repair(database_in(new))
    found = {one.name: one.artifact_location for one in client.search_experiments()}
    assert {name: found[name] for name in theirs} == theirs
    assert found["digits"] == f"{new.as_uri()}/mlruns/artifacts/digits"
    store.check(store.sqlite_uri(database_in(new)))


def test_experiments_of_two_earlier_places_follow_together(moved: tuple[Path, Path], tmp_path: Path) -> None:
    """As those are that were made after a move, before moves were noticed."""
    new, _ = moved
    client = MlflowClient(store.sqlite_uri(database_in(new)))
    kind = {sqlite_store.KIND_TAG: "custom_model_development"}
    client.create_experiment("later", artifact_location=(new / "mlruns/artifacts/later").as_uri(), tags=kind)
    third = new.rename(tmp_path / "third place")
    sqlite_store.repair(database_in(third))
    assert lie_under(third)


def kill(moment: str, arguments: list[str], home: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, KILL_AT, moment, *arguments],
        env={**os.environ, "MNIST_PIPELINE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.wait(120) == -signal.SIGKILL


@pytest.mark.parametrize(
    "moment",
    [
        "_known 2 after",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("_require_moved 1 after", "_repair 1 after")),
    ],
)
def test_a_killed_repair_is_done_or_not_started(moment: str, moved: tuple[Path, Path], cli: Cli) -> None:
    new, _ = moved
    before = locations(new)
    kill(f"call mnist_pipeline.tracking.sqlite_store {moment}", ["doctor", "--fix"], new)
    assert lie_under(new) if moment.startswith("_repair") else locations(new) == before
    assert cli("doctor", "--fix", MNIST_PIPELINE_HOME=str(new)).returncode == 0
    assert lie_under(new)


def test_a_repair_killed_while_it_writes_is_taken_back(moved: tuple[Path, Path], cli: Cli) -> None:
    """What had reached the file is taken back by whoever opens it next."""
    new, _ = moved
    before = locations(new)
    code = (
        "import os, sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "connection.execute('PRAGMA cache_size = 2'); connection.execute('BEGIN IMMEDIATE');"
        "connection.execute('UPDATE runs SET artifact_uri = hex(zeroblob(4000))');"
        "connection.execute('UPDATE params SET value = hex(randomblob(2000))'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(database_in(new))], check=False)
    assert database_in(new).with_name("mlflow.db-journal").exists()
    assert cli("doctor", MNIST_PIPELINE_HOME=str(new)).returncode == 1
    assert locations(new) == before


@pytest.mark.slow
def test_an_interrupted_run_resumes_after_a_move(home: Path, tmp_path: Path, cli: Cli) -> None:
    arguments = ["train", "preset=smoke", "train.num_epochs=4", "train.checkpoint_every=1"]
    kill("call mnist_pipeline.tracking.mlflow_tracker MlflowRun.log_metrics 2 after", arguments, home)
    elsewhere = home.rename(tmp_path / "elsewhere")
    sqlite_store.repair(database_in(elsewhere))
    result = cli(*arguments, MNIST_PIPELINE_HOME=str(elsewhere))
    assert result.returncode == 0
    assert "resume    after epoch" in result.stderr
    assert not home.exists()
    client = MlflowClient(store.sqlite_uri(database_in(elsewhere)))
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.info.status == "FINISHED"
    assert lie_under(elsewhere)


def test_a_store_that_is_missing_is_not_created(cli: Cli, tmp_path: Path) -> None:
    missing = cli("doctor", "--fix", f"tracking.uri={store.sqlite_uri(tmp_path / 'none.db')}")
    assert (missing.returncode, (tmp_path / "none.db").exists()) == (1, False)
