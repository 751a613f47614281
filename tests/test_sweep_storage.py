"""Where a study is kept: files of others stay as they are, and a journal stays whole."""

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import Cli
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sweep_home import ALONE, Recorder, sweep_here
from test_sweep_study import make_config, open_study

from mnist_pipeline.sweep import storage
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking.record import Point


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, images=np.arange(10_000))
    return file.getvalue()


FOREIGN = {
    "npz": npz(),
    "text": b"Dear diary,\nnothing happened",
    "one-line": b"no newline at all",
    "json": json.dumps({"learning_rate": 0.001}, indent=2).encode(),
    "json-lines": b'{"epoch": 1}\n{"epoch": 2}\n',
    "json-list": b'["op_code"]\n',
    "torn": b'{"op_code": 0, "worker_id": "a',  # somebody else's by its place
    "blank-line": b"\n",
    "deep": b"[" * 100_000 + b"\n",
}


def require_refused(where: str, path: Path, *, says: str) -> None:
    """Neither the file nor its folder changes, and a line names it."""
    before = {other: other.read_bytes() for other in path.parent.iterdir() if other.is_file()}
    with pytest.raises(ConfigError) as caught:
        open_study(make_config(storage=where))
    assert {other: other.read_bytes() for other in path.parent.iterdir() if other.is_file()} == before
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_a_journal_is_left_untouched(name: str, home: Path) -> None:
    path = home / "file"
    path.write_bytes(FOREIGN[name])
    require_refused(str(path), path, says="left untouched")


def test_a_study_in_sqlite_given_as_a_file_stays_as_it_is(home: Path) -> None:
    path = home / "studies.db"
    open_study(make_config(storage=f"sqlite:///{path}")).ask()
    require_refused(str(path), path, says=f"sqlite:///{path}")
    assert len(open_study(make_config(storage=f"sqlite:///{path}")).trials()) == 1


def test_the_database_of_another_program_stays_as_it_is(home: Path) -> None:
    """MLflow's store has a table of the same name as one of Optuna's: Optuna would take it over."""
    path = home / "mlruns" / "mlflow.db"
    require_refused(f"sqlite:///{path}", path, says="left untouched")
    (home / "text.db").write_text("This is no database, but long enough to have a header of one." * 20)
    require_refused(f"sqlite:///{home}/text.db", home / "text.db", says="left untouched")


def test_anything_but_a_file_is_refused(home: Path) -> None:
    os.mkfifo(home / "fifo")
    for where in (str(home), str(home / "fifo"), os.devnull, f"sqlite:///{home}", str(home / ("x" * 300))):
        with pytest.raises(ConfigError, match=r"^sweep\.storage=.*"):
            storage.check(where)
    with pytest.raises(UserError, match=r"sweep.storage=sqlite:////nowhere/at/all.db cannot be opened"):
        open_study(make_config(storage="sqlite:////nowhere/at/all.db"))


@pytest.mark.parametrize("line", [b"garbage\n", b'{"op_code": 99}\n', b'{"op_code": 5}\n', b"\x00\x00\x00\n"])
def test_a_journal_damaged_in_the_middle_is_reported_in_one_line(line: bytes, home: Path) -> None:
    open_study(make_config()).ask()
    path = journal_path("s")
    first, *rest = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([first, line, *rest])
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"^sweep\.storage={path}[^\n]*$"):
        open_study(make_config())
    assert path.read_bytes() == damaged


def test_an_incomplete_first_line_is_removed(home: Path) -> None:
    journal_path("s").parent.mkdir(parents=True)
    journal_path("s").write_bytes(FOREIGN["torn"])
    open_study(make_config()).ask()
    assert len(open_study(make_config()).trials()) == 1


def test_an_empty_file_and_a_tilde_will_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    (home / "study").touch()
    open_study(make_config(storage="~/study")).ask()
    assert len(open_study(make_config(storage=str(home / "study"))).trials()) == 1


def test_the_lock_of_a_journal_is_not_a_file_of_the_user(home: Path) -> None:
    lock = home / "poetry.lock"
    lock.write_text("pinned")
    open_study(make_config(storage=str(home / "poetry"))).ask()
    assert lock.read_text() == "pinned"


def test_an_entry_that_is_written_half_is_taken_back(home: Path) -> None:
    """By a real limit on the file's size, which lets a part of the entry through, as a full disk does."""
    study = open_study(make_config())
    study.ask()
    path = journal_path("s")
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
    try:
        with pytest.raises(UserError, match=rf"^File too large: .*sweep\.storage={path}"):
            study.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == whole
    assert study.ask().number == 1
    assert [trial.number for trial in open_study(make_config()).trials(TrialState.RUNNING)] == [0, 1]


OPEN = """
import sys
from test_sweep_study import make_config, open_study
config = make_config(storage=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(open_study(config, sys.argv[2]).ask().number)
"""


def test_two_commands_that_create_one_database_both_work(home: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, f"sqlite:///{home}/studies.db", name],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate() for child in children]
    assert [output for output, _ in outputs] == ["0\n"] * 2, outputs
    known = optuna.get_all_study_names(f"sqlite:///{home}/studies.db")
    assert sorted(known) == ["a", "b"]


def test_the_commands_refuse_in_one_line_before_anything_starts(home: Path, cli: Cli) -> None:
    path = home / "notes.txt"
    path.write_bytes(FOREIGN["text"])
    shutil.rmtree(home / "mlruns")
    commands: list[tuple[Any, ...]] = [("sweep", "preset=smoke"), ("dashboard",)]
    for command in commands:
        found = cli(*command, f"sweep.storage={path}")
        assert found.returncode == 2, found.stderr
        assert found.stderr.startswith(f"error: sweep.storage={path} ")
        assert found.stderr.count("\n") == 1
    assert [item.name for item in home.iterdir()] == ["notes.txt"]
    assert path.read_bytes() == FOREIGN["text"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the sweep's workers")
@pytest.mark.parametrize("kept", ["database", "journal"])
def test_a_study_that_is_deleted_meanwhile_is_one_line(kept: str, home: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    given = [f"sweep.storage={url}"] if kept == "database" else []

    def delete(name: str, point: Point) -> None:
        if name == "trial 1":
            storage = url if given else JournalStorage(JournalFileBackend(str(journal_path("s"))))
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name="s", storage=storage)

    words = [*ALONE, "sweep.num_trials=3", *given]
    with pytest.raises(UserError, match="the study s was deleted"):
        sweep_here(*words, recorder=Recorder(delete))
    assert len(sweep_here(*words).study.trials()) == 3
