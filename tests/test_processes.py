import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mnist_pipeline.system import processes
from mnist_pipeline.system.processes import Process

CODE = "from mnist_pipeline.system import processes; print(processes.current().to_json(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], Process]]:
    with subprocess.Popen([sys.executable, "-c", CODE], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        known = processes.read(process.stdout.readline())
        assert known is not None
        yield process, known
        process.kill()


def test_a_process_lives_until_it_is_killed(child: tuple[subprocess.Popen[str], Process]) -> None:
    process, known = child
    assert known.pid == process.pid
    assert processes.is_alive(known)
    os.kill(process.pid, signal.SIGSTOP)
    assert processes.is_alive(known)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.is_alive(known) is False  # its parent has not asked yet


def test_a_pid_that_was_used_again_is_another_process() -> None:
    here = processes.current()
    assert processes.is_alive(here)
    assert processes.is_alive(dataclasses.replace(here, started="1")) is False
    assert processes.is_alive(dataclasses.replace(here, pid=2**22 + 1)) is False


def test_a_boot_ends_a_process_and_another_machine_or_container_is_not_known() -> None:
    here = processes.current()
    container = here.space.partition(" ")[2]
    assert processes.is_alive(dataclasses.replace(here, space=f"another-boot {container}")) is False
    assert processes.is_alive(dataclasses.replace(here, space=f"{here.space}0")) is None
    assert processes.is_alive(dataclasses.replace(here, host="elsewhere")) is None
    assert processes.is_alive(dataclasses.replace(here, machine="0" * 12)) is None


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", "null", '{"pid": 1}'])
def test_a_text_that_is_no_process_is_none(text: str | None) -> None:
    assert processes.read(text) is None
