"""A sweep, with real workers and a real store."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from conftest import Cli, command
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowEntity
from optuna.trial import TrialState

from mnist_pipeline.config import compose
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.reports import cards, page
from mnist_pipeline.sweep import space
from mnist_pipeline.sweep.executors import worker
from mnist_pipeline.sweep.pool import StopRequest
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.sweep.sweep import SweepResult, sweep
from mnist_pipeline.sweep.trainings import Ending
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import Terminated, UserError
from mnist_pipeline.tracking import find_run
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Point

KILL_AT = str(Path(__file__).with_name("kill_at.py"))
SMOKE = ["preset=smoke", "sweep.study=s", "sweep.confirm=null"]
ALONE = [*SMOKE, "sweep.num_workers=1"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


class Recorder:
    """Records the progress of a sweep, and may act on it."""

    def __init__(self, on_epoch: Callable[[str, Point], None] | None = None) -> None:
        self.endings: list[tuple[str, Ending]] = []
        self.epochs: list[tuple[str, int]] = []
        self.executors: set[int] = set()
        self._on_epoch = on_epoch
        self._lock = threading.Lock()

    def begin(self, *, stage: str, num_done: int, num_total: int, best: float | None = None) -> None:
        pass

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        with self._lock:
            self.executors.add(executor)
            self.epochs.append((name, point.number))
        if self._on_epoch:
            self._on_epoch(name, point)

    def finish(self, executor: int, *, name: str, ending: Ending, detail: str, value: float | None) -> None:
        with self._lock:
            self.endings.append((name, ending))


def sweep_here(*overrides: str, recorder: Recorder | None = None, stop: StopRequest | None = None) -> SweepResult:
    """Do in this process what the command does; it saves the imports."""
    base, config = space.compose_sweep(overrides)
    request = prepare(base, overrides, compose_with_data=partial(compose.compose_with_data, schema=space.SWEEP))
    return sweep(
        request,
        config,
        MlflowTracker(request.config.tracking),
        progress=recorder or Recorder(),
        stop=stop or StopRequest(),
    )


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")


def runs(home: Path, kind: str) -> list[MlflowEntity]:
    client = client_of(home)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", order_by=["start_time ASC"])
    return list(found)


def outcome(study: Study) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values) for trial in study.trials()
    ]


def read_study(home: Path) -> Study:
    """Open the study that a command has made."""
    _, config = space.compose_sweep(ALONE)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal_path("s"))))
    identity = json.loads(optuna.load_study(study_name="s", storage=storage).user_attrs["identity"])
    return Study(config, name="s", identity=identity, max_epochs=4)


def require_whole(home: Path, study: Study) -> None:
    """Every trial has exactly one run, closed, with each of its points once; nothing else is left."""
    (parent,) = runs(home, "sweep")
    assert parent.info.status == "FINISHED"
    children = {int(run.data.tags["trial.number"]): run for run in runs(home, "trial")}
    assert len(children) == len(runs(home, "trial"))
    assert sorted(children) == [trial.number for trial in study.trials()]
    client = client_of(home)
    for trial in study.trials():
        run = children[trial.number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["trial.state"] == trial.state.name
        assert run.info.status == ("FAILED" if trial.state is TrialState.FAIL else "FINISHED")
        points = client.get_metric_history(run.info.run_id, "validation/accuracy")
        assert [(point.step, point.value) for point in points] == list(trial.intermediate_values.items())
        assert all(run.data.params[key] == str(value) for key, value in trial.params.items())
    assert list(paths.checkpoints_dir().glob("*/*")) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[list[tuple[Any, ...]]]:
    """What eight trials by one worker come to when nobody disturbs them."""
    home = tmp_path_factory.mktemp("uninterrupted")
    (home / "mlruns").mkdir()
    shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for whoever comes after
        study = sweep_here(*ALONE).study
        require_whole(home, study)
        yield outcome(study)


def test_a_sweep_from_the_command_to_the_store(cli: Cli, home: Path) -> None:
    found = cli("sweep", "preset=smoke")
    assert found.returncode == 0, found.stderr
    assert "8/8" in found.stderr
    assert len([line for line in found.stderr.splitlines() if line.startswith("trial ")]) == 8
    assert not [line for line in found.stderr.splitlines() if "WARNING" in line or "cuda" in line.lower()]
    assert re.search(r"^winner  +(trial \d+|the baseline: no interval excludes 0)$", found.stdout, re.MULTILINE)
    (parent,) = runs(home, "sweep")
    assert parent.data.metrics["sweep/num_complete"] + parent.data.metrics["sweep/num_pruned"] == 8
    artifacts = home / "mlruns" / "artifacts" / "digits" / parent.info.run_id / "artifacts" / "sweep"
    assert {path.name for path in artifacts.rglob("*") if path.is_file()} == {
        "contours.png", "importances.png", "learning_curves.png", "optimization_history.png",
        "parallel_coordinates.png", "slices.png", "plots.html", "trials.csv", "trials.json", "trials.parquet",
        "verdict.json", "verdict.png", "winner.yaml",
    }  # fmt: skip
    table = pd.read_parquet(artifacts / "trials.parquet")
    assert list(table["number"]) == list(range(8))
    trials = {int(run.data.tags["trial.number"]): run.info.run_id for run in runs(home, "trial")}
    assert list(table["run_id"]) == [trials[number] for number in range(8)]
    first = table.to_dict("records")[0]
    assert [first[key] for key in ("model.hidden_width", "model.dropout_rate", "train.num_epochs")] == [32, 0.2, 2]
    page = (artifacts / "plots.html").read_text()
    assert page.count("<h2>") == 6
    assert 'src="http' not in page
    assert len(runs(home, "confirm")) == 2 * 3
    assert len({run.data.params["data.split_seed"] for run in runs(home, "confirm")}) == 3
    (final,) = runs(home, "final")
    assert final.info.status == "FINISHED"
    assert final.data.metrics["test/accuracy"] > 0.8
    experiment = client_of(home).get_experiment_by_name("digits")
    assert experiment is not None
    (model,) = client_of(home).search_logged_models([experiment.experiment_id])
    assert model.source_run_id == final.info.run_id
    assert not any("test/accuracy" in run.data.metrics for kind in ("trial", "confirm") for run in runs(home, kind))
    verdict = json.loads((artifacts / "verdict.json").read_text())
    (winner,) = compose.check(["preset=winner"], config_dir=str(artifacts))
    assert final.data.params["model.hidden_width"] == str(verdict["params"]["model.hidden_width"])
    assert winner.model.hidden_width == verdict["params"]["model.hidden_width"]
    assert list((home / "mlruns" / "checkpoints").iterdir()) == []

    again = cli("sweep", "preset=smoke")
    assert again.returncode == 0, again.stderr
    assert "trials: 8 of 8 are done" in again.stderr
    assert [len(runs(home, kind)) for kind in ("sweep", "trial", "confirm", "final")] == [1, 8, 6, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.num_trails=3"], "error: unknown key sweep.num_trails: did you mean sweep.num_trials?"),
        (["model.hidden_width=3"], "error: model.hidden_width: is swept"),
        (["-m", "sweep.seed=1,2"], "error: --multirun: not for this command"),
        (["tracking.uri=foo://bar"], "error: tracking URI foo://bar"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(overrides: list[str], message: str, cli: Cli, home: Path) -> None:
    before = sorted(home.rglob("*"))
    found = cli("sweep", *overrides)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert sorted(home.rglob("*")) == before


def start_sweep(*overrides: str, moment: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, KILL_AT, moment, "sweep", *overrides] if moment else command("sweep", *overrides)
    return subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` has begun, and theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in descendants(child)]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def test_a_sweep_killed_as_a_whole_resumes_to_the_same_result(home: Path, uninterrupted: list[tuple[Any, ...]]) -> None:
    """Between the end of a trial's run and telling Optuna."""
    with start_sweep(*ALONE, moment="call mnist_pipeline.sweep.study Study.tell 4 before") as child:
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert [trial.state.name for trial in read_study(home).trials()] == [
        *(state.name for _, state, *_ in uninterrupted[:3]),
        "RUNNING",
    ]
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted
    require_whole(home, result.study)


def test_when_the_command_is_killed_its_workers_die_too(home: Path, uninterrupted: list[tuple[Any, ...]]) -> None:
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
    assert outcome(result.study) == uninterrupted
    require_whole(home, result.study)


def kill_worker(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def own_workers() -> list[int]:
    """Return the workers of this process: what its server has forked."""
    return [pid for child in descendants(os.getpid()) for pid in descendants(child)]


def test_a_worker_that_is_killed_is_replaced(home: Path, uninterrupted: list[tuple[Any, ...]]) -> None:
    killed: list[int] = []

    def kill_once(name: str, point: Point) -> None:
        if name == "trial 3" and point.number == 2 and not killed:
            killed.extend(own_workers())
            for pid in killed:
                kill_worker(pid)

    recorder = Recorder(kill_once)
    result = sweep_here(*ALONE, recorder=recorder)
    assert len(killed) == 1
    assert outcome(result.study) == uninterrupted
    assert recorder.epochs.count(("trial 3", 2)) == 1
    require_whole(home, result.study)


def kill_always(number: signal.Signals) -> Recorder:
    """What ends every worker of trial 3 after each of its epochs."""

    def kill(name: str, point: Point) -> None:
        if name == "trial 3":
            for pid in own_workers():
                os.kill(pid, number)

    return Recorder(kill)


def test_repeatedly_killed_workers_stop_the_sweep_which_resumes(
    home: Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
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
    assert outcome(result.study) == uninterrupted
    require_whole(home, result.study)


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


def test_trials_that_diverge_are_recorded_and_replaced_up_to_a_cap(home: Path) -> None:
    diverging = "+sweep.space.train.learning_rate={type:categorical,choices:[0.001,1e30]}"
    overrides = [*SMOKE, diverging, "sweep.num_trials=6", "sweep.sampler=random", "sweep.max_failures=20"]
    result = sweep_here(*overrides)
    failed = result.study.trials(TrialState.FAIL)
    assert len(failed) > 0
    assert result.failures is not None
    assert result.failures.startswith(f"{len(failed)} ")
    assert all(trial.user_attrs["reason"].startswith("LossNotFiniteError: the training loss") for trial in failed)
    assert len(result.study.trials(TrialState.COMPLETE, TrialState.PRUNED)) == 6
    require_whole(home, result.study)

    with pytest.raises(UserError, match=r"trials failed, more than sweep.max_failures=0; the last: LossNotFiniteError"):
        sweep_here(*overrides, "sweep.study=t", "sweep.max_failures=0")
    assert not [run for run in runs(home, "trial") if run.info.status == "RUNNING"]
    (gave_up,) = [run for run in runs(home, "sweep") if run.info.status == "FAILED"]
    assert "more than sweep.max_failures=0" in gave_up.data.tags["reason"]
    assert gave_up.data.metrics["sweep/num_failed"] >= 1


def test_the_timeout_leaves_the_rest(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = sweep_here(*ALONE, "sweep.timeout_sec=1e-9")
    assert result.study.trials(TrialState.COMPLETE) == []
    assert re.search("sweep.timeout_sec=1e-09 .* 8 trials", caplog.text)


def test_a_study_continues_to_a_higher_total(home: Path, uninterrupted: list[tuple[Any, ...]]) -> None:
    sweep_here(*ALONE, "sweep.num_trials=3")
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted
    assert len(runs(home, "sweep")) == 1
    with pytest.raises(
        UserError, match=r"sweep.study=s exists, .*\(sweep.space.model.hidden_width was .*high=64.* is .*high=65"
    ):
        sweep_here(*ALONE, "sweep.space.model.hidden_width.high=65")


def test_earlier_epochs_are_replayed_and_continued(home: Path) -> None:
    """Two points, so that nearly every trial is a duplicate; the longer one goes on where the shorter one ended."""
    points = ["~sweep.space.model.hidden_width", "~sweep.space.model.dropout_rate", "sweep.sampler=random"]
    epochs = ["sweep.space.train.num_epochs.low=2", "sweep.pruner=none"]
    recorder = Recorder()
    result = sweep_here(*ALONE, *points, *epochs, recorder=recorder)
    trials = result.study.trials()
    assert len(trials) == 8
    by_length: dict[int, set[float | None]] = {}
    for trial in trials:
        by_length.setdefault(trial.params["train.num_epochs"], set()).add(trial.value)
    assert all(len(values) == 1 for values in by_length.values())
    sources = [trial.user_attrs.get("source") for trial in trials]
    assert sources[0] is None
    assert all(sources[1:])
    assert {run.data.tags.get("source.run_id") for run in runs(home, "trial")} == set(sources)
    require_whole(home, result.study)


def test_a_replayed_trial_is_judged_by_this_study(home: Path) -> None:
    """Trained to the end in one study, it is pruned by another whose trials are better."""
    fixed = ["~sweep.space.model.dropout_rate", "~sweep.space.train.num_epochs", "train.num_epochs=4"]
    width = "sweep.space.model.hidden_width"
    categorical = [f"{width}.type=categorical", *(f"{width}.{key}=null" for key in ("low", "high", "log"))]
    grid = [*ALONE, *fixed, *categorical, "sweep.sampler=grid", "sweep.pruner=median"]
    first = sweep_here(*grid, "sweep.study=t", "sweep.num_trials=2", f"+{width}.choices=[32,1]")
    assert first.study.trials()[-1].state is TrialState.COMPLETE
    result = sweep_here(*grid, "sweep.num_trials=6", f"+{width}.choices=[32,40,48,56,64,1]")
    last = result.study.trials()[-1]
    assert last.params == {"model.hidden_width": 1}
    assert last.state is TrialState.PRUNED
    assert last.last_step == 3
    assert last.user_attrs["source"]


def test_a_baseline_without_a_rival_is_the_winner(home: Path) -> None:
    confirmed = ["preset=smoke", "sweep.study=s", "sweep.num_workers=2", "sweep.num_trials=1"]
    result = sweep_here(*confirmed, "sweep.confirm.num_seeds=2")
    assert result.verdict is not None
    assert (result.verdict.comparisons, result.verdict.winner) == ((), None)
    (final,) = runs(home, "final")
    assert final.data.params["model.hidden_width"] == "32"
    assert final.data.params["data.split_seed"] == "0"
    assert final.data.params["train.seed"] != "0"


def test_two_workers_share_the_trials(home: Path) -> None:
    recorder = Recorder()
    result = sweep_here(*SMOKE, "sweep.num_workers=2", "sweep.num_trials=12", recorder=recorder)
    assert recorder.executors == {0, 1}
    assert len(result.study.trials(TrialState.COMPLETE, TrialState.PRUNED)) == 12
    require_whole(home, result.study)


def test_eight_workers_lose_no_point(home: Path) -> None:
    recorder = Recorder()
    result = sweep_here(*SMOKE, "sweep.num_workers=8", "sweep.num_trials=24", "sweep.pruner=none", recorder=recorder)
    assert len(recorder.executors) == 8
    require_whole(home, result.study)
    client = client_of(home)
    histories = [
        client.get_metric_history(run.info.run_id, key) for run in runs(home, "trial") for key in run.data.metrics
    ]
    logged = sum(len(history) for history in histories)
    trials = result.study.trials()
    assert logged == 5 * sum(trial.params["train.num_epochs"] for trial in trials) + len(trials)  # and the time of each


@pytest.mark.parametrize(("reason", "told"), [(KeyboardInterrupt(), "Ctrl-C"), (Terminated(), "SIGTERM")])
def test_a_stopped_sweep_can_resume(
    reason: BaseException, told: str, home: Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
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
    assert outcome(result.study) == uninterrupted
    require_whole(home, result.study)


def wait_for_an_epoch() -> None:
    """Wait until a worker has written a checkpoint, so that one was not only begun."""
    known = set(paths.checkpoints_dir().glob("*/*/*.checkpoint"))
    deadline = time.monotonic() + 90
    while not set(paths.checkpoints_dir().glob("*/*/*.checkpoint")) - known:
        assert time.monotonic() < deadline
        time.sleep(0.1)


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


def test_one_study_has_one_owner(home: Path) -> None:
    refused: list[str] = []

    def try_too(name: str, point: Point) -> None:
        if not refused:
            with pytest.raises(UserError) as caught:
                sweep_here(*ALONE)
            refused.append(str(caught.value))

    sweep_here(*ALONE, "sweep.num_trials=1", recorder=Recorder(try_too))
    assert f"process {os.getpid()} on " in refused[0]
    assert "the study s is in use" in refused[0]


def test_an_unwritable_message_of_a_worker_is_kept_short() -> None:
    assert worker._describe_exit(-9) == "signal 9, out of memory?"
    assert worker._describe_exit(-11) == "signal 11"
    assert worker._describe_exit(1) == "exit code 1"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_kills_lose_and_double_nothing(seed: int, home: Path, uninterrupted: list[tuple[Any, ...]]) -> None:
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
    assert outcome(result.study) == uninterrupted
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


def test_tracking_config_of_a_sweep_is_that_of_a_run(home: Path) -> None:
    result = sweep_here(*ALONE, "sweep.num_trials=1", "tracking.experiment=elsewhere")
    client = client_of(home)
    assert client.get_experiment(client.get_run(result.parent.run_id).info.experiment_id).name == "elsewhere"


def test_a_continued_study_has_the_settings_of_its_last_command(home: Path) -> None:
    sweep_here(*ALONE, "sweep.num_trials=2", "sweep.max_failures=3")
    sweep_here(*ALONE, "sweep.num_trials=3", "sweep.max_failures=4", "sweep.confirm=null")
    (parent,) = client_of(home).search_runs(["1"], "tags.kind = 'sweep'")
    settings = {**parent.data.params, **parent.data.tags}
    assert (settings["sweep.num_trials"], settings["sweep.max_failures"], settings["sweep.confirm"]) == (
        "3",
        "4",
        "null",
    )
    assert settings["sweep.metric"] == "validation/accuracy"
    store = MlflowStore(compose.compose([]).tracking)
    shown = page.render(cards.make(store, find_run.find(store, parent.info.run_id, model_name="")).page)
    assert re.search(r"sweep\.num_trials</t[dh]>\s*<td[^>]*>3<", shown)
    assert not re.search(r"sweep\.confirm</t[dh]>", shown)
