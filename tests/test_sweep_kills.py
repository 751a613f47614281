"""Sweeps whose processes are killed or stopped end as undisturbed ones."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweep_home import (
    ALONE,
    SMOKE,
    Recorder,
    Trials,
    descendants,
    outcome,
    own_workers,
    read_study,
    require_whole,
    runs,
    start_sweep,
    sweep_here,
)

from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import Terminated, UserError
from mnist_pipeline.tracking.record import Point

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_killed_as_a_whole_resumes_to_the_same_result(home: Path, uninterrupted_sweep: Trials) -> None:
    """Between the end of a trial's run and telling Optuna."""
    with start_sweep(*ALONE, moment="call mnist_pipeline.sweep.study Study.tell 4 before") as child:
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert [trial.state.name for trial in read_study(home).trials()] == [
        *(state.name for _, state, *_ in uninterrupted_sweep[:3]),
        "RUNNING",
    ]
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


@pytest.mark.slow
def test_when_the_command_is_killed_its_workers_die_too(home: Path, uninterrupted_sweep: Trials) -> None:
    with start_sweep(*ALONE) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("trial 2"):
                break
        started = descendants(child.pid)
        assert len(started) >= 2  # the server that forks, and a worker
        child.kill()
    wait_until_gone(started)
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


def kill_worker(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_worker_that_is_killed_is_replaced(home: Path, uninterrupted_sweep: Trials) -> None:
    killed: list[int] = []

    def kill_once(name: str, point: Point) -> None:
        if name == "trial 3" and point.number == 2 and not killed:
            killed.extend(own_workers())
            for pid in killed:
                kill_worker(pid)

    recorder = Recorder(kill_once)
    result = sweep_here(*ALONE, recorder=recorder)
    assert len(killed) == 1
    assert outcome(result.study) == uninterrupted_sweep
    assert recorder.epochs.count(("trial 3", 2)) == 1
    require_whole(home, result.study)


def kill_always(number: signal.Signals) -> Recorder:
    """What ends every worker of trial 3 after each of its epochs."""

    def kill(name: str, point: Point) -> None:
        if name == "trial 3":
            for pid in own_workers():
                os.kill(pid, number)

    return Recorder(kill)


@pytest.mark.slow
def test_repeatedly_killed_workers_stop_the_sweep_which_resumes(home: Path, uninterrupted_sweep: Trials) -> None:
    with pytest.raises(UserError) as caught:
        sweep_here(*ALONE, "sweep.max_failures=0", recorder=kill_always(signal.SIGKILL))
    told = str(caught.value)
    assert told.startswith("its worker died (signal 9")
    assert "trial 3 (model." in told
    assert "sweep.num_workers" in told
    assert "\n" not in told
    study = read_study(home)
    assert [trial.state.name for trial in study.trials()][3:] == ["RUNNING"]
    (failed,) = [run for run in runs(home, "trial") if run.info.status == "FAILED"]
    assert failed.data.tags["trial.number"] == "3"
    assert "its worker died" in failed.data.tags["reason"]
    (parent,) = runs(home, "sweep")
    assert parent.info.status == "FAILED"
    result = sweep_here(*ALONE, "sweep.max_failures=0")
    assert result.failures is None
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


@pytest.mark.slow
def test_a_training_that_crashes_every_worker_fails_and_is_replaced(home: Path) -> None:
    result = sweep_here(*ALONE, recorder=kill_always(signal.SIGSEGV))
    states = [trial.state for trial in result.study.trials()]
    assert states[3] is TrialState.FAIL
    assert len(states) == 9
    assert result.study.trials()[3].user_attrs["reason"] == "its worker died (signal 11)"
    assert result.failures is not None
    assert "1 trial failed and was replaced" in result.failures
    (failed,) = [run for run in runs(home, "trial") if run.info.status == "FAILED"]
    assert "its worker died" in failed.data.tags["reason"]
    require_whole(home, result.study)


@pytest.mark.parametrize(
    ("reason", "told"), [(KeyboardInterrupt(), "Ctrl-C"), pytest.param(Terminated(), "SIGTERM", marks=pytest.mark.slow)]
)
def test_a_stopped_sweep_can_resume(reason: BaseException, told: str, home: Path, uninterrupted_sweep: Trials) -> None:
    stop = StopRequest()

    def stop_at(name: str, point: Point) -> None:
        if name == "trial 3" and point.number == 2:
            stop.set(reason)

    with pytest.raises(type(reason)):
        sweep_here(*ALONE, recorder=Recorder(stop_at), stop=stop)
    (parent,) = runs(home, "sweep")
    killed = [run for run in runs(home, "trial") if run.info.status == "KILLED"]
    assert parent.info.status == "KILLED"
    assert [run.data.tags["trial.number"] for run in killed] == ["3"]
    assert killed[0].data.tags["reason"] == told
    assert own_workers() == []
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


def wait_for_an_epoch() -> None:
    """Wait until a worker has written a checkpoint, so that one was not only begun."""
    known = set(paths.checkpoints_dir().glob("*/*/*.checkpoint"))
    deadline = time.monotonic() + 90
    while not set(paths.checkpoints_dir().glob("*/*/*.checkpoint")) - known:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_the_first_ctrl_c_finishes_and_the_second_stops_at_once(home: Path) -> None:
    endless = [*SMOKE, "~sweep.space.train.num_epochs", "train.num_epochs=1000000"]
    for times in (1, 2):
        with start_sweep(*endless) as child:
            assert child.stderr is not None
            wait_for_an_epoch()
            started = descendants(child.pid)
            for _ in range(times):
                os.killpg(child.pid, signal.SIGINT)
                time.sleep(0.01)
            rest = child.stderr.read()
        assert child.returncode == 130
        assert "Ctrl-C" in rest
        assert ("are done; the same command resumes" in rest) == (times == 1)
        assert "Traceback" not in rest
        wait_until_gone(started)
    trials = runs(home, "trial")
    assert trials
    assert {run.info.status for run in trials} <= {"KILLED", "RUNNING"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_kills_lose_and_double_nothing(seed: int, home: Path, uninterrupted_sweep: Trials) -> None:
    """Of a worker, of the command, of all at once; with one worker the end is the same to the bit."""
    chance = random.Random(seed)
    for _ in range(3):
        with start_sweep(*ALONE) as child:
            time.sleep(chance.uniform(2, 14))
            started = descendants(child.pid)
            target = chance.choice(["worker", "command", "all"])
            if target == "worker" and len(started) > 1:
                kill_worker(started[-1])
                time.sleep(chance.uniform(0, 2))
            if target == "command":
                child.kill()
            elif child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        wait_until_gone(started)
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


@pytest.mark.slow
def test_random_kills_of_two_workers_keep_the_total(home: Path) -> None:
    chance = random.Random(0)
    overrides = [*SMOKE, "sweep.num_workers=2", "sweep.num_trials=30"]
    for _ in range(4):
        with start_sweep(*overrides) as child:
            time.sleep(chance.uniform(8, 12))
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    result = sweep_here(*overrides)
    assert len(result.study.trials(TrialState.COMPLETE, TrialState.PRUNED)) == 30
    assert len(result.study.trials()) == 30
    require_whole(home, result.study)
