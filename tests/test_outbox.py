"""A tracking server that goes away while a run is tracked: nothing is lost, and nothing is doubled."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Cli, server
from mlflow import MlflowClient
from sweep_home import ALONE, Recorder, Trials, outcome, require_whole, sweep_here

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import integrity, outbox
from mnist_pipeline.tracking.mlflow_run import MlflowRun
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Point, Tag
from mnist_pipeline.tracking.tracker import RunSpec
from mnist_pipeline.train.epochs import Epoch

OVERRIDES = ("data=digits", "model.hidden_width=16", "train.num_epochs=4", "tracking.patience_sec=60")


class Server:
    """A server that can be away."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self._home = home
        self._stack = stack
        self.address = stack.enter_context(server(home / "mlruns" / "mlflow.db", home / "server"))

    def go_away(self) -> None:
        self._stack.close()

    def go_away_from_open_run(self) -> None:
        """Go away when the run is open, which takes longer than the first epochs on digits."""
        client, until = MlflowClient(self.address), time.monotonic() + 60
        while time.monotonic() < until:
            experiment = client.get_experiment_by_name("digits")
            found = client.search_runs([experiment.experiment_id]) if experiment else []
            if any(one.inputs and one.inputs.dataset_inputs for one in found):
                break
            time.sleep(0.05)
        self.go_away()

    def come_back(self) -> None:
        port = int(self.address.rpartition(":")[2])
        self._stack.enter_context(server(self._home / "mlruns" / "mlflow.db", self._home / "server", port=port))


@pytest.fixture
def tracking(home: Path) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        yield Server(home, stack)


def train(address: str, *overrides: str, on_epoch: Callable[[Epoch], None] | None = None) -> run.RunResult:
    given = [*OVERRIDES, f"tracking.uri={address}", *overrides]
    asked = prepare(compose.compose(given), given)
    return run.execute(asked, MlflowTracker(asked.config.tracking), on_epoch=on_epoch)


@dataclass
class Tracked:
    """What the server has of its one run."""

    points: dict[str, list[tuple[int, float]]]
    params: dict[str, str]
    inputs: list[str]
    files: dict[str, str]
    sealed: list[list[str]]
    digest: str


def read(address: str, folder: Path) -> Tracked:
    given = [*OVERRIDES, f"tracking.uri={address}"]
    store = MlflowStore(compose.compose(given).tracking)
    client = MlflowClient(address)
    found = client.get_experiment_by_name("digits")
    assert found is not None
    (one,) = client.search_runs([found.experiment_id])
    (model,) = client.search_logged_models([found.experiment_id])
    assert (one.info.status, model.status.value) == ("FINISHED", "READY")
    assert integrity.find_damage(store, one.info.run_id) == ()
    folder.mkdir()
    files = Path(client.download_artifacts(one.info.run_id, "", str(folder)))
    varying = ("config.yaml", "overrides.yaml", "history.csv", "code.patch", "files.json")
    assert one.inputs is not None
    return Tracked(
        points={
            key: [(point.step, point.value) for point in client.get_metric_history(one.info.run_id, key)]
            for key in one.data.metrics
            if not key.startswith("time/")
        },
        params={key: value for key, value in one.data.params.items() if not key.startswith("tracking.")},
        inputs=sorted(used.dataset.digest for used in one.inputs.dataset_inputs),
        files={
            str(path.relative_to(files)): "" if path.name in varying else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files.rglob("*"))
            if path.is_file()
        },
        sealed=[sorted(part) for part in json.loads((files / "environment/files.json").read_text()).values()],
        digest=one.data.tags["result.digest"],
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(home))
        (home / "mlruns").mkdir()
        with server(home / "mlruns" / "mlflow.db", home / "server") as address:
            train(address)
            return read(address, home / "files")


@pytest.mark.slow
def test_a_server_that_comes_back_has_everything(
    tracking: Server, undisturbed: Tracked, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PROBE_PAUSE_SEC", 0.0)

    def disturb(epoch: Epoch) -> None:
        if epoch.number == 1:
            tracking.go_away_from_open_run()
        if epoch.number == 3:
            tracking.come_back()

    train(tracking.address, on_epoch=disturb)
    assert not list((home / "mlruns" / "pending").iterdir())
    assert read(tracking.address, home / "files") == undisturbed


@pytest.mark.slow
def test_a_server_that_stays_away_gets_it_from_doctor(
    tracking: Server, undisturbed: Tracked, home: Path, cli: Cli
) -> None:
    with pytest.raises(UserError, match="doctor --fix"):
        train(
            tracking.address,
            "tracking.patience_sec=0",
            on_epoch=lambda epoch: tracking.go_away_from_open_run() if epoch.number == 2 else None,
        )
    (pending,) = outbox.list_left()
    assert cli("doctor", f"tracking.uri={tracking.address}").returncode == 1  # it is still away
    tracking.come_back()
    client = MlflowClient(tracking.address)
    client.delete_run(pending.run_id)  # a run that was deleted meanwhile takes nothing
    failed = cli("doctor", "--fix", f"tracking.uri={tracking.address}")
    assert (failed.returncode, f"pending/{pending.run_id}" in failed.stdout) == (1, True)
    client.restore_run(pending.run_id)
    assert cli("doctor", f"tracking.uri={tracking.address}").returncode == 1
    fixed = cli("doctor", "--fix", f"tracking.uri={tracking.address}")
    assert fixed.returncode == 0, fixed
    assert not list((home / "mlruns" / "pending").iterdir())
    assert read(tracking.address, home / "files") == undisturbed
    assert train(tracking.address).run_id == pending.run_id
    assert not list((home / "mlruns" / "checkpoints").iterdir())


WRITES = ("log_metrics", "set_tags", "log_input", "log_artifacts", "upload_model", "log_files", "end")


@pytest.mark.slow
@pytest.mark.parametrize("is_done", [False, True], ids=["lost request", "lost answer"])
def test_any_write_can_be_lost(
    is_done: bool, tracking: Server, undisturbed: Tracked, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PROBE_PAUSE_SEC", 0.0)
    lost: list[str] = []

    def lose(name: str) -> Callable[..., None]:
        original: Callable[..., None] = getattr(MlflowRun, name)

        def write(self: MlflowRun, *arguments: Any, **named: Any) -> None:
            if lost.count(name) < 1 or (name == "log_metrics" and lost.count(name) < 3):
                lost.append(name)
                if is_done:
                    original(self, *arguments, **named)
                raise requests.ConnectionError("lost")
            original(self, *arguments, **named)

        return write

    for name in WRITES:
        monkeypatch.setattr(MlflowRun, name, lose(name))
    train(tracking.address)
    assert set(lost) == set(WRITES)
    assert read(tracking.address, home / "files") == undisturbed


@pytest.mark.slow
def test_the_next_command_sends_what_a_killed_one_left(
    tracking: Server, undisturbed: Tracked, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            tracking.go_away_from_open_run()
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tracking.address, on_epoch=stop)
    assert len(outbox.list_left()) == 1
    tracking.come_back()
    train(tracking.address)
    assert not list((home / "mlruns" / "pending").iterdir())
    assert read(tracking.address, home / "files") == undisturbed


@pytest.mark.slow
def test_a_sweep_waits_for_a_server_that_restarts(
    tracking: Server, home: Path, uninterrupted_sweep: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away while a trial ends and the next one is to begin."""
    monkeypatch.setattr(outbox, "PROBE_PAUSE_SEC", 0.5)
    waits: list[str] = []

    def disturb(name: str, point: Point) -> None:
        if (name, point.number) == ("trial 1", 1):
            tracking.go_away()
            threading.Timer(2.0, tracking.come_back).start()

    class Watcher(Recorder):
        def wait(self, what: str | None) -> None:
            waits.append(what or "back")

    result = sweep_here(*ALONE, f"tracking.uri={tracking.address}", recorder=Watcher(disturb))
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)
    assert not list((home / "mlruns" / "pending").iterdir())
    assert waits[-1] == "back"
    assert waits[0].startswith(f"the tracking store {tracking.address}")


@pytest.mark.slow
def test_a_sweep_whose_server_stays_away_ends_and_is_resumed(
    tracking: Server, home: Path, uninterrupted_sweep: Trials
) -> None:
    def leave(name: str, point: Point) -> None:
        if name == "trial 2":
            tracking.go_away()

    given = [*ALONE, f"tracking.uri={tracking.address}", "sweep.patience_sec=1"]
    with pytest.raises(UserError, match="stays away"):
        sweep_here(*given, recorder=Recorder(leave))
    tracking.come_back()
    result = sweep_here(*given)
    assert outcome(result.study) == uninterrupted_sweep
    require_whole(home, result.study)


@pytest.mark.parametrize("is_done", [False, True], ids=["lost request", "lost answer"])
def test_a_run_is_created_once_even_if_the_answer_is_lost(
    is_done: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run
    lost: list[str] = []

    def lose(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        created = create(client, *arguments, **named) if is_done or lost else None
        if not lost:
            lost.append("once")
            raise requests.ConnectionError("lost")
        return created

    monkeypatch.setattr(MlflowClient, "create_run", lose)
    spec = RunSpec(kind="train", name="a", description="", params={}, tags={}, resume_id="1")
    tracker = MlflowTracker(TrackingConfig(uri=None, experiment="digits"))
    with tracker.run(spec) as opened:
        pass
    assert lost
    assert [run.run_id for run in tracker.find_interrupted({}, {})] == []
    found = MlflowClient().search_runs([MlflowClient().get_experiment_by_name("digits").experiment_id])
    assert [run.info.run_id for run in found] == [opened.run_id]


def test_what_was_kept_of_a_run_that_another_command_continued_is_dropped(home: Path) -> None:
    """On another machine, with another outbox."""
    tracker = MlflowTracker(TrackingConfig(uri=None, experiment="digits"))
    spec = RunSpec(kind="train", name="a", description="", params={}, tags={}, resume_id="1")
    with tracker.run(spec) as opened:
        run = MlflowRun(tracker._store, experiment_id=tracker._experiment_id, run_id=opened.run_id, is_resumed=False)
        kept = outbox.Outbox(opened.run_id)
        kept.add(run, "log_metrics", {"metrics": {"train/loss": 9.0}, "step": 1, "timestamp_ms": 1}, None)
        kept.close()
    tracker._client.set_tag(opened.run_id, Tag.PROCESS, "another")
    (left,) = outbox.list_left()
    outbox.send_left(tracker._store, left)
    assert outbox.list_left() == []
    assert "train/loss" not in tracker._client.get_run(opened.run_id).data.metrics
