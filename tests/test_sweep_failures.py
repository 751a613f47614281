"""What a failure says: of the configuration, of what surrounds it, or nothing that lasts. And what a grid keeps."""

import errno
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import tensorflow as tf
from optuna.trial import TrialState
from sweep_home import ALONE, Recorder, own_workers, require_whole, runs, sweep_here
from test_sweep_study import BASELINE, make_config, open_study

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Config
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.executor import Executor, Task
from mnist_pipeline.executors.failure import Cause, HinderedError
from mnist_pipeline.executors.forked import describe_death
from mnist_pipeline.executors.training import explain
from mnist_pipeline.executors.worker import Reported, WorkerDiedError
from mnist_pipeline.pipeline.checkpoints import Checkpoints
from mnist_pipeline.sweep.search import describe_failures, require_few_failures
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import Point
from mnist_pipeline.train.fit import LossNotFiniteError

# What version 0.1 wrote, and what it says.
REASONS = {
    "LossNotFiniteError: the training loss of epoch 1 is inf: lower train.learning_rate": Cause.diverged,
    "UserError: the checkpoint of epoch 1 cannot be written to /x (No space left on device)": Cause.surroundings,
    "OSError: [Errno 28] No space left on device": Cause.surroundings,
    "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']": Cause.surroundings,
    "MemoryError: Unable to allocate 3.1 GiB": Cause.surroundings,
    "ResourceExhaustedError: {{function_node __wrapped__}} OOM when allocating": Cause.surroundings,
    "its worker died (signal 9, out of memory?)": Cause.surroundings,
    "its worker died (signal 15)": Cause.surroundings,
    "its worker died (signal 11)": Cause.error,
    "its worker died (exit code 1)": Cause.error,
    "ValueError: shapes differ": Cause.error,
}


@pytest.mark.parametrize("sweep", ["default", "grid"])
@pytest.mark.parametrize(("reason", "kind"), REASONS.items())
def test_a_study_of_version_0_1_that_lost_a_point_tries_it(reason: str, kind: Cause, sweep: str, home: Path) -> None:
    config = make_config(f"sweep={sweep}")
    study = open_study(config)
    study.enqueue_planned(BASELINE)
    num_planned = len(study.trials())
    trial = study.ask()
    trial.set_user_attr("reason", reason)
    study.optuna.tell(trial, state=TrialState.FAIL)

    study = open_study(config)
    study.enqueue_planned(BASELINE)
    study.enqueue_planned(BASELINE)
    is_final = kind is Cause.diverged
    assert len(study.trials()) == num_planned + (0 if is_final else 1)
    assert len(study.failed()) == (0 if kind is Cause.surroundings else 1)
    waiting = [waiting.system_attrs["fixed_params"] for waiting in study.trials(TrialState.WAITING)]
    assert (BASELINE in waiting) == (not is_final)
    told = describe_failures(study, config)
    assert (told is None) == (kind is Cause.surroundings)
    assert told is None or "replaced" not in told


class OneEpoch:
    """A worker that reports one epoch."""

    num_begun = 0

    def begin(self, config: Config, found: Found, start: bytes | None) -> None:
        self.num_begun += 1

    def follow(self) -> Generator[Reported]:
        yield Point(1, {}, 0), b"checkpoint"

    def stop(self) -> None:
        pass


def test_a_checkpoint_that_cannot_be_written_is_not_the_fault_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = compose.compose(["data=digits"])
    executor = Executor(lambda goes_on: OneEpoch(), index=0, wait_sec=0)
    with pytest.raises(HinderedError) as caught:
        list(executor.train(Task(config, catalogue.find(config.data), Checkpoints(tmp_path / "file")), after=0))
    failure = caught.value.failure
    assert failure.cause is Cause.surroundings
    assert failure.reason.startswith("File exists: the checkpoint")
    assert failure.next_step


class DiesAtTheEnd(OneEpoch):
    """A worker that dies when its training is stopped."""

    def follow(self) -> Generator[Reported]:
        try:
            yield Point(1, {}, 0), None
        finally:
            raise WorkerDiedError(describe_death(-signal.SIGKILL))


def test_a_worker_that_dies_when_its_training_is_stopped_is_not_replaced(tmp_path: Path) -> None:
    started: list[OneEpoch] = []

    def start(goes_on: Callable[[], bool]) -> OneEpoch:
        started.append(DiesAtTheEnd())
        return started[-1]

    config = compose.compose(["data=digits"])
    executor = Executor(start, index=0, wait_sec=0)
    task = Task(config, catalogue.find(config.data), Checkpoints(tmp_path))
    epochs = executor.train(task, after=0)
    assert next(epochs).number == 1
    epochs.close()
    assert (len(started), executor.is_ready) == (1, False)


class DiesAtOnce(OneEpoch):
    """A worker that is dead when it is given its task."""

    def begin(self, config: Config, found: Found, start: bytes | None) -> None:
        raise WorkerDiedError(describe_death(-signal.SIGKILL))


def test_a_training_that_was_begun_is_not_begun_again(tmp_path: Path) -> None:
    workers: list[OneEpoch] = [DiesAtOnce(), OneEpoch()]
    executor = Executor(lambda goes_on: workers.pop(0), index=0, wait_sec=0)
    config = compose.compose(["data=digits"])
    task = Task(config, catalogue.find(config.data), Checkpoints(tmp_path))
    executor.begin(task)  # there is no worker yet
    executor.prepare(lambda: True)
    executor.begin(task)  # it is dead: `train` replaces it
    (last,) = workers
    assert [point.number for point in executor.train(task, after=0)] == [1]
    assert last.num_begun == 1
    following = Task(config, task.found, Checkpoints(tmp_path / "following"))
    executor.begin(following)
    assert last.num_begun == 2
    assert [point.number for point in executor.train(following, after=0)] == [1]
    assert last.num_begun == 2


def test_an_error_names_its_training() -> None:
    exhausted = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
    expected = {
        LossNotFiniteError("the training loss is inf"): (Cause.diverged, "LossNotFiniteError"),
        OSError(errno.ENOSPC, "No space left on device", "x"): (Cause.surroundings, "No space left on device"),
        OSError("something"): (Cause.surroundings, "OSError: something"),
        MemoryError("3 GiB"): (Cause.surroundings, "not enough memory (3 GiB)"),
        exhausted: (Cause.surroundings, "not enough memory (OOM"),
        ValueError("a bug"): (Cause.error, "ValueError: a bug"),
    }
    for error, (kind, start) in expected.items():
        failure = explain(error)
        assert failure.cause is kind
        assert failure.reason.startswith(start)
        assert bool(failure.next_step) == (kind is Cause.surroundings)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ([-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGXCPU, 255], Cause.surroundings),
        ([-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, 0, 1, None], Cause.error),
    ],
)
def test_the_end_of_a_worker_is_described(codes: list[int | None], kind: Cause) -> None:
    assert {describe_death(code).cause for code in codes} == {kind}


GRID = [
    *ALONE, "sweep.sampler=grid", "sweep.num_trials=3", "~sweep.space.model.dropout_rate",
    "~sweep.space.train.num_epochs", "train.num_epochs=3", "sweep.space.model.hidden_width.type=categorical",
    *(f"sweep.space.model.hidden_width.{key}=null" for key in ("low", "high", "log")),
    "+sweep.space.model.hidden_width.choices=[128,16,24]",
]  # fmt: skip


def widths(states: list[tuple[TrialState, int]], wanted: TrialState) -> list[int]:
    return sorted(width for state, width in states if state is wanted)


@pytest.mark.slow
def test_a_grid_keeps_a_point_whose_workers_crash(home: Path) -> None:
    """The baseline: at once in the same command; and where too many fail, in a later one."""

    def crash(name: str, point: Point) -> None:
        if name == "trial 0":
            for pid in own_workers():
                os.kill(pid, signal.SIGSEGV)

    with pytest.raises(UserError, match=r"1 trials? failed, more than sweep.max_failures=0; the last: its worker died"):
        sweep_here(*GRID, "sweep.max_failures=0", recorder=Recorder(crash))
    result = sweep_here(*GRID, "sweep.max_failures=1")
    states = [(trial.state, trial.params["model.hidden_width"]) for trial in result.study.trials()]
    assert widths(states, TrialState.COMPLETE) == [16, 24, 128]
    assert widths(states, TrialState.FAIL) == [128]
    assert result.failures is not None
    assert "1 trial failed; the rest was tried again" in result.failures
    require_whole(home, result.study)

    sweep_here(*GRID, "sweep.study=t", "train.seed=1", recorder=Recorder(crash))
    done = [run for run in runs(home, "trial") if run.data.tags["study"] == "t"]
    assert sorted((run.data.params["model.hidden_width"], run.info.status) for run in done) == [
        ("128", "FAILED"), ("128", "FINISHED"), ("16", "FINISHED"), ("24", "FINISHED"),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_grid_does_not_repeat_a_diverged_point(home: Path) -> None:
    diverging = [*GRID, "+sweep.space.train.learning_rate={type:categorical,choices:[0.001,1e30]}"]
    for _ in range(2):
        result = sweep_here(*diverging, "sweep.num_trials=6")
        states = [trial.state for trial in result.study.trials()]
        assert states.count(TrialState.COMPLETE) == states.count(TrialState.FAIL) == 3
        assert len(states) == 6
        assert result.failures is not None
        assert "3 trials failed" in result.failures
        assert "again" not in result.failures
        require_whole(home, result.study)


def test_failures_that_surroundings_caused_do_not_count(home: Path) -> None:
    """Ten of them in a study of version 0.1, and not one may fail: the same command still works."""
    config = make_config(max_failures=0)
    study = open_study(config)
    for _ in range(10):
        trial = study.ask()
        trial.set_user_attr("reason", "OSError: [Errno 28] No space left on device")
        study.optuna.tell(trial, state=TrialState.FAIL)
    require_few_failures(study, config)
