"""Commands on a real disk that is full: one line, nothing counted, and the same command ends where it would have."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import small_disk
from conftest import command
from optuna.storages.journal import JournalFileBackend
from sweep_home import sweep_here

SWEEP = ["sweep", "preset=smoke", "sweep.study=s", "sweep.num_workers=1"]
SHORT = [*SWEEP, "sweep.num_trials=1", "sweep.confirm=null"]
WHOLE = [*SWEEP, "sweep.num_trials=3", "sweep.confirm.num_seeds=2", "sweep.confirm.max_seeds=2"]
TRAIN = ["train", "preset=smoke"]

Result = tuple[list[Any], list[Any], list[Any]]


@pytest.fixture
def disk(home: Path) -> Iterator[small_disk.SmallDisk]:
    """A small disk where the home is, with an empty store in it."""
    store = home / "mlruns" / "mlflow.db"
    with small_disk.mounted(home) as mounted:
        (mounted.seen / "mlruns").mkdir()
        shutil.copy(store, mounted.seen / "mlruns")
        yield mounted


def read(database: Path, query: str, scratch: Path) -> list[Any]:
    shutil.copy(database, scratch / "copy.db")
    with sqlite3.connect(scratch / "copy.db") as connection:
        return connection.execute(query).fetchall()


def read_result(home: Path, scratch: Path) -> Result:
    """Return the trials, the name and status of each run, and the last of its metrics but those of time and size."""
    database = home / "mlruns" / "mlflow.db"
    runs = read(database, "SELECT name, status FROM runs ORDER BY name", scratch)
    metrics = read(
        database,
        "SELECT name, key, latest_metrics.step, value FROM latest_metrics JOIN runs USING (run_uuid) "
        "WHERE key NOT LIKE 'time/%' AND key NOT LIKE '%bytes' ORDER BY name, key",
        scratch,
    )
    trials: list[Any] = []
    journal = home / "mlruns" / "optuna" / "s.journal"
    if journal.exists():
        shutil.copy(journal, scratch / "copy.journal")
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(scratch / "copy.journal")))
        for name in optuna.get_all_study_names(storage):  # none if there was no space for it
            found = optuna.load_study(study_name=name, storage=storage).trials
            trials = [(trial.state.name, trial.params, trial.value, trial.intermediate_values) for trial in found]
    return trials, runs, metrics


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[list[str]], Result]:
    """What a command leaves when nothing disturbs it; each one runs once."""
    known: dict[str, Result] = {}

    def run(arguments: list[str]) -> Result:
        key = " ".join(arguments)
        if key not in known:
            home = tmp_path_factory.mktemp("undisturbed")
            (home / "mlruns").mkdir()
            shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
            environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
            subprocess.run(command(*arguments), env=environment, cwd=home, check=True, capture_output=True)
            known[key] = read_result(home, home)
        return known[key]

    return run


def require_one_line(found: subprocess.CompletedProcess[str]) -> None:
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert found.stderr.endswith(f"{line}\n")
    assert any(cause in line for cause in ("No space left on device", "disk is full", "No usable temporary directory"))


def require_resumed(
    arguments: list[str],
    disk: small_disk.SmallDisk,
    expected: Result,
    *,
    num_kb: int,
    home: Path,
    scratch: Path,
    **environment: str,
) -> None:
    """Run the command with so much space left, and again with enough if it stopped."""
    disk.leave(num_kb)
    found = disk.run(*command(*arguments), cwd=scratch, **environment)
    disk.free()
    if found.returncode != 0:
        require_one_line(found)
        _, runs, _ = read_result(home, scratch)
        is_told = "could not be marked FAILED" in found.stderr  # the store itself had no space for it
        assert is_told or "RUNNING" not in {status for _, status in runs}
        found = disk.run(*command(*arguments), cwd=scratch, **environment)
    assert found.returncode == 0, found.stderr
    trials, runs, metrics = read_result(home, scratch)
    assert trials == expected[0]
    assert runs == expected[1]
    assert metrics == expected[2]


@pytest.mark.slow
def test_a_sweep_that_is_short_of_space_for_a_checkpoint_resumes(
    disk: small_disk.SmallDisk, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    arguments = [*SHORT, "sweep.max_failures=0"]
    disk.leave(90)
    require_one_line(disk.run(*command(*arguments), cwd=tmp_path))
    trials, runs, _ = read_result(disk.seen, tmp_path)
    assert [state for state, *_ in trials] == ["RUNNING"]
    assert {status for _, status in runs} == {"FAILED"}
    for reason in read(disk.seen / "mlruns" / "mlflow.db", "SELECT value FROM tags WHERE key = 'reason'", tmp_path):
        assert "No space left on device" in str(reason)

    disk.free()
    shutil.copytree(disk.seen, home, dirs_exist_ok=True)  # the same path for this process, which has imported it all
    sweep_here(*arguments[1:])
    resumed = read_result(home, tmp_path)
    other = tmp_path / "other home"
    (other / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, other / "mlruns" / "mlflow.db")
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(other))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sweep_here(*arguments[1:])
    assert resumed == read_result(other, tmp_path)


# The sizes at which one write after the other finds no space, from the first to the last.
AT_HOME = [(WHOLE, num_kb) for num_kb in (0, 24, 60, 400, 1000, 2000, 4000, 8000, 9000)] + [
    (TRAIN, num_kb) for num_kb in (0, 40, 120, 250, 600, 900, 1200)
]
IN_TMPDIR = [(WHOLE, num_kb) for num_kb in (0, 4, 60)] + [(TRAIN, num_kb) for num_kb in (0, 30, 160)]


def name_case(value: list[str] | int) -> str:
    return f"{value} KB" if isinstance(value, int) else value[0]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "num_kb"), AT_HOME, ids=name_case)
def test_the_same_command_resumes_after_any_write_without_space(
    arguments: list[str],
    num_kb: int,
    disk: small_disk.SmallDisk,
    tmp_path: Path,
    undisturbed: Callable[[list[str]], Result],
) -> None:
    require_resumed(arguments, disk, undisturbed(arguments), num_kb=num_kb, home=disk.seen, scratch=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "num_kb"), IN_TMPDIR, ids=name_case)
def test_the_same_command_resumes_after_any_temporary_file_without_space(
    arguments: list[str],
    num_kb: int,
    home: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    undisturbed: Callable[[list[str]], Result],
) -> None:
    folder = tmp_path_factory.mktemp("t")  # short, for the path of a socket in it
    with small_disk.mounted(folder) as disk:
        require_resumed(
            arguments,
            disk,
            undisturbed(arguments),
            num_kb=num_kb,
            home=home,
            scratch=tmp_path,
            TMPDIR=str(folder),
        )
        assert [path.name for path in disk.seen.iterdir()] == []
