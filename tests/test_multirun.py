"""The runs of a --multirun, side by side: the same results as one after the other."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Cli, command
from mlflow import MlflowClient
from mlflow.entities import Run

SEEDS = ("train", "-m", "preset=smoke", "train.seed=0,1,1")


def find_runs(home: Path) -> dict[str, Run]:
    """The runs by their seeds; each has one."""
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    seeds = {run.data.params["train.seed"]: run for run in found}
    assert len(seeds) == len(found)
    return seeds


def digests(home: Path) -> dict[str, str]:
    return {seed: run.data.tags["result.digest"] for seed, run in find_runs(home).items()}


@pytest.mark.slow
def test_runs_side_by_side_are_those_of_one_after_the_other(
    cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cli(*SEEDS, "executor.num_workers=2")
    assert found.returncode == 0, found.stderr
    assert "3 runs" in found.stdout  # of two equal ones the second finds the first
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    for run in find_runs(home).values():
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in points] == [1, 2]
        assert not any(key.startswith("executor") for key in run.data.params)
    assert not list((home / "mlruns" / "checkpoints").iterdir())
    serial = tmp_path / "serial"
    serial.mkdir()
    again = cli("train", "-m", "preset=smoke", "train.seed=0,1", MNIST_PIPELINE_HOME=str(serial))
    assert again.returncode == 0, again.stderr
    assert digests(serial) == digests(home)


def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(cli: Cli, home: Path) -> None:
    found = cli("train", "-m", "preset=smoke", "train.learning_rate=1e30,0.001,0.002", "executor.num_workers=2")
    assert found.returncode == 1
    assert "the training failed (LossNotFiniteError" in found.stderr
    assert found.stdout.count("test accuracy") == 2
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED", "FINISHED"]


@pytest.mark.slow
def test_a_command_that_is_killed_resumes_all_of_its_runs(cli: Cli, home: Path) -> None:
    words = (*SEEDS, "train.num_epochs=60", "executor.num_workers=2")
    with subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        until = time.monotonic() + 60
        while len(list((home / "mlruns" / "checkpoints").glob("*/epoch-1*.checkpoint"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
    resumed = cli(*words)
    assert resumed.returncode == 0, resumed.stderr
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    for run in find_runs(home).values():
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in points] == list(range(1, 61))
    resumed_to = digests(home)["1"]
    forced = cli("train", "preset=smoke", "train.num_epochs=60", "train.seed=1", "force=true")
    assert resumed_to[:32] in forced.stdout


@pytest.mark.slow
def test_ctrl_c_stops_all_runs_after_their_epochs(home: Path) -> None:
    words = command(
        "train", "-m", "preset=smoke", "train.seed=0,1", "train.num_epochs=100000", "executor.num_workers=2"
    )
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        until = time.monotonic() + 60
        while len(list((home / "mlruns" / "checkpoints").glob("*/*.checkpoint"))) < 4:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130, said
    assert "0 of 2 runs are done; the same command resumes" in said
    assert {run.info.status for run in find_runs(home).values()} == {"KILLED"}


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["executor.num_workers=2", "tracking.experiment=a,b"], "tracking: one store and experiment"),
        (["executor.num_workers=1,2"], "executor: one for all runs"),
    ],
)
def test_what_runs_at_once_must_share(overrides: list[str], text: str, cli: Cli) -> None:
    refused = cli("train", "-m", "preset=smoke", *overrides)
    assert (refused.returncode, text in refused.stderr) == (2, True), refused.stderr
