import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli, command


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path, as sockets need it
        yield Path(folder)


def start(temporary: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.Popen(command(*words), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(temporary: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(temporary.glob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern}")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "preset=smoke", "train.num_epochs=1000000"),
        pytest.param(("sweep", "preset=smoke"), marks=pytest.mark.slow),
    ],
)
def test_the_next_command_clears_what_a_killed_one_left(
    words: tuple[str, ...], home: Path, cli: Cli, temporary: Path
) -> None:
    killed = start(temporary, *words)
    wait_for(temporary, "mnist-*/" if words[0] == "train" else "*/pymp-*")
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert list(temporary.iterdir())

    cli("compare", "data=digits", TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []


def test_a_living_commands_files_stay(home: Path, cli: Cli, temporary: Path) -> None:
    living = start(temporary, "train", "preset=smoke", "train.num_epochs=1000000")
    try:
        wait_for(temporary, "mnist-*/")
        (folder,) = [path for path in temporary.iterdir() if path.is_dir()]
        cli("compare", "data=digits", TMPDIR=str(temporary))
        assert folder.is_dir()
        living.send_signal(signal.SIGTERM)
        assert living.wait(30) == 143
        assert list(temporary.iterdir()) == []
    finally:
        living.kill()


@pytest.mark.slow
def test_a_long_temporary_folder_works(home: Path, cli: Cli, temporary: Path) -> None:
    """The path of a socket may have 107 bytes, and TMPDIR more, as on clusters."""
    long = temporary / ("x" * 90) / ("y" * 90)
    long.mkdir(parents=True)
    swept = cli(
        "sweep",
        "preset=smoke",
        "sweep.num_trials=1",
        "sweep.confirm.num_seeds=2",
        "sweep.confirm.max_seeds=2",
        TMPDIR=str(long),
    )
    assert swept.returncode == 0, swept.stderr
    assert list(long.iterdir()) == []


def test_files_of_others_are_kept(home: Path, cli: Cli, tmp_path: Path, temporary: Path) -> None:
    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    (temporary / "mnist-x.lock").symlink_to(kept)
    (temporary / "mnist-notes").mkdir()
    cli("compare", "data=digits", TMPDIR=str(temporary))
    assert kept.read_text() == "mine"
    assert sorted(path.name for path in temporary.iterdir()) == ["mnist-notes", "mnist-x.lock"]
