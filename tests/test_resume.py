"""A run that is killed at any moment and called again ends where one that never was ends, bit for bit."""

import logging
import os
import random
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import NO_MIRRORS, Cli, command
from mlflow import MlflowClient
from resume_home import (
    SMOKE,
    EndState,
    all_runs,
    interrupt_here,
    kill_after,
    kill_at,
    read_digest,
    read_end,
    run_here,
    uri,
)

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline.checkpoints import Checkpoints
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> EndState:
    home = tmp_path_factory.mktemp("uninterrupted")
    (home / "mlruns").mkdir()
    shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["MNIST_PIPELINE_HOME"] = str(home)
    subprocess.run(command(*SMOKE), env=environment, check=True, capture_output=True)
    end = read_end(home)
    assert end.points["train/loss"][-1][0] == 4
    assert len(end.files) == 25
    assert len(end.model_metrics) == 9
    return end


def test_a_run_killed_twice_ends_like_an_uninterrupted_one(cli: Cli, home: Path, uninterrupted: EndState) -> None:
    """One after the other: the second is a command that goes on, and so on."""
    for moment in (
        "call os fsync 3 before",  # while the checkpoint of the second epoch is written
        "call mlflow MlflowClient.log_model_artifacts 1 after",
    ):
        kill_at(moment)
    found = cli(*SMOKE)
    assert found.returncode == 0, found.stderr
    assert "resume    after epoch 4 of 4" in found.stderr
    assert read_end(home) == uninterrupted


TWO_LOGGED = "call mnist_pipeline.tracking.mlflow_run MlflowRun.log_metrics 2 after"
"""The run is open, two epochs are logged, and as many as there were meanwhile are in checkpoints."""

CLIENT = "call mlflow MlflowClient"
UPLOAD = "call mnist_pipeline.tracking.artifacts ArtifactFolder.upload"


MOMENTS = [
    *(f"import {module}" for module in ("hydra", "tensorflow", "keras", "mlflow", "mnist_pipeline.pipeline.stages")),
    f"{CLIENT}.create_experiment 1 before", f"{CLIENT}.create_experiment 1 after",
    f"{CLIENT}.create_run 1 before", f"{CLIENT}.create_run 1 after",
    f"{CLIENT}.log_batch 1 after",
    *(f"{UPLOAD} {nth} after" for nth in (1, 2, 3, 4, 5, 6)),
    f"{CLIENT}.log_inputs 1 after", f"{CLIENT}.log_inputs 3 before",
    "call shutil copy2 3 after", "call shutil copy2 12 before",
    *(f"call mnist_pipeline.train.trainer Trainer.run_epoch {nth} after" for nth in (1, 3, 4)),
    # os.fsync: the id, its folder, then each checkpoint and its folder
    *(f"call os fsync {nth} {when}" for nth in (1, 2, 3, 6) for when in ("before", "after")),
    *(f"call mnist_pipeline.pipeline.checkpoints Checkpoints.save {nth} after" for nth in (1, 4)),
    f"{CLIENT}.log_batch 3 after", f"{CLIENT}.log_batch 6 before",
    f"{CLIENT}.create_logged_model 1 before", f"{CLIENT}.create_logged_model 1 after",
    "call mlflow.tensorflow save_model 1 before", "call mlflow.tensorflow save_model 1 after",
    f"{CLIENT}.log_model_artifacts 1 after",
    f"{CLIENT}.log_outputs 1 before", f"{CLIENT}.log_outputs 1 after",
    f"{CLIENT}.finalize_logged_model 1 before", f"{CLIENT}.finalize_logged_model 1 after",
    f"{UPLOAD} 7 before", f"{UPLOAD} 7 after",
    f"{CLIENT}.set_terminated 1 before", f"{CLIENT}.set_terminated 1 after",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_moment_leaves_no_trace(moment: str, cli: Cli, home: Path, uninterrupted: EndState) -> None:
    kill_at(moment)
    found = cli(*SMOKE)
    assert found.returncode == 0, found.stderr
    assert read_end(home) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_kills_at_random_times_leave_no_trace(seed: int, cli: Cli, home: Path, uninterrupted: EndState) -> None:
    """Three in a row, from outside, wherever the command happens to be."""
    chance = random.Random(seed)
    for _ in range(3):
        kill_after(chance.uniform(0.2, 8.0))
    found = cli(*SMOKE)
    assert found.returncode == 0, found.stderr
    assert read_end(home) == uninterrupted


def test_points_are_not_sent_before_their_checkpoint(home: Path, uninterrupted: EndState) -> None:
    """With a checkpoint every third epoch the second would be trained again, and its point get another time stamp."""
    overrides = [*SMOKE[1:], "train.checkpoint_every=3"]
    interrupt_here(*overrides, stop_after=2)
    assert "train/loss" not in all_runs(home)[0].data.metrics
    run_here(*overrides)
    end = read_end(home)
    assert (end.points, end.weights) == (uninterrupted.points, uninterrupted.weights)


@pytest.mark.slow
def test_a_failed_run_resumes_and_loses_its_reason(home: Path, uninterrupted: EndState) -> None:
    interrupt_here(*SMOKE[1:], stop_after=3)
    (run,) = all_runs(home)
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "InterruptedError: ")
    run_here(*SMOKE[1:])
    assert read_end(home) == uninterrupted


@pytest.mark.slow
def test_a_run_missing_from_the_store_continues_in_a_new_one(
    home: Path, uninterrupted: EndState, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt_here(*SMOKE[1:], stop_after=2)
    MlflowClient(uri(home)).delete_run(all_runs(home)[0].info.run_id)
    run_here(*SMOKE[1:])
    assert "the interrupted run is not in this experiment any more" in caplog.text
    assert read_end(home) == uninterrupted


@pytest.mark.slow
def test_a_run_is_continued_in_another_experiment_and_closed_where_it_was(
    home: Path, uninterrupted: EndState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mnist_pipeline")
    kill_at(TWO_LOGGED)
    (left,) = all_runs(home)
    assert left.info.status == "RUNNING"
    run_here(*SMOKE[1:], "tracking.experiment=other")
    assert re.search(r"resume    after epoch \d of 4", caplog.text)
    assert left.info.run_id in caplog.text
    closed = MlflowClient(uri(home)).get_run(left.info.run_id)
    assert closed.info.status == "KILLED"
    assert "another experiment" in closed.data.tags["reason"]
    assert read_end(home, "other").weights == uninterrupted.weights


@pytest.mark.slow
def test_an_interrupted_run_of_other_versions_is_reported_and_started_again(cli: Cli, home: Path) -> None:
    kill_at(TWO_LOGGED)
    (left,) = all_runs(home)
    found = cli(*SMOKE, TF_ENABLE_ONEDNN_OPTS="0")  # it changes the bits, and so the fingerprint
    assert found.returncode == 0, found.stderr
    (line,) = [line for line in found.stderr.splitlines() if left.info.run_id[:8] in line]
    assert line.startswith("warning: ")
    assert "resume " not in found.stderr
    assert sorted(run.info.status for run in all_runs(home)) == ["FINISHED", "RUNNING"]
    again = cli(*SMOKE)  # the older version can still resume its own
    assert re.search(r"resume    after epoch \d of 4", again.stderr)
    assert [run.info.status for run in all_runs(home)] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_params_that_decide_nothing_may_change_in_between(home: Path, uninterrupted: EndState) -> None:
    interrupt_here(*SMOKE[1:], "train.checkpoint_every=2", stop_after=3)
    run_here(*SMOKE[1:])
    end = read_end(home)
    assert (end.points, end.weights) == (uninterrupted.points, uninterrupted.weights)
    assert end.params["train.checkpoint_every"] == "2"


@pytest.mark.slow
def test_a_fallback_run_is_not_continued_on_mnist(
    home: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["train.num_epochs=2", "model.hidden_width=8", *NO_MIRRORS]
    caplog.set_level(logging.INFO, "mnist_pipeline")
    interrupt_here(*overrides, stop_after=1)
    with monkeypatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_DATA_DIR", str(mnist_dir))
        assert run_here(*overrides).request.dataset.name == "mnist"
    assert "resume" not in caplog.text
    assert run_here(*overrides).request.dataset.name == "digits"
    assert "resume    after epoch 1 of 2" in caplog.text


@pytest.mark.slow
def test_a_second_owner_fails_or_waits(cli: Cli, home: Path) -> None:
    arguments = [*SMOKE, "train.num_epochs=1000000"]
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True) as owner:
        assert owner.stderr is not None
        for line in owner.stderr:
            if "epoch 2/" in line:
                break
        refused = cli(*arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: this run is in use by process {owner.pid} on ")
        assert "wait=true" in refused.stderr
        assert refused.stderr.count("\n") == 1

        with subprocess.Popen(command(*arguments, "wait=true"), stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert f"process {owner.pid}" in waiting.stderr.readline()
            owner.kill()
            resumed = waiting.stderr.readline()
            assert re.match(r"resume    after epoch \d+ of 1000000", resumed)
            waiting.terminate()
            waiting.stderr.read()
    assert waiting.returncode == 143


def test_a_finished_run_is_shown_and_not_repeated(cli: Cli, home: Path) -> None:
    first, second = cli(*SMOKE), cli(*SMOKE)
    assert second.returncode == 0
    assert second.stdout == first.stdout
    assert "force=true trains again" in second.stderr
    assert "epoch" not in second.stderr
    assert len(all_runs(home)) == 1

    forced = run_here(*SMOKE[1:], "force=true")
    assert forced.digest[:32] == read_digest(first.stdout)
    assert [run.info.status for run in all_runs(home)] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_an_interrupted_forced_run_resumes_as_one_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "clear", lambda self: None)  # as if killed between its last two acts
        run_here(*SMOKE[1:])
    assert list((home / "mlruns" / "checkpoints").glob("*/epoch-4.checkpoint"))
    forced = [*SMOKE[1:], "force=true"]
    interrupt_here(*forced, stop_after=2)
    assert sorted(run.info.status for run in all_runs(home)) == ["FAILED", "FINISHED"]
    run_here(*forced)
    assert [run.info.status for run in all_runs(home)] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_a_run_whose_files_are_gone_does_not_count(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run_here(*SMOKE[1:])
    client = MlflowClient(uri(home))
    (run,) = all_runs(home)
    (model,) = client.search_logged_models([run.info.experiment_id])
    tracker = MlflowTracker(TrackingConfig(uri=None, experiment="digits"))
    asked = {"fingerprint": run.data.tags["fingerprint"]}
    artifacts = home / "mlruns" / "artifacts" / "digits"
    logged = artifacts / run.info.run_id / "artifacts"
    for gone in (
        logged / "evaluate" / "predictions.parquet",
        logged / "environment" / "files.json",
        logged / "config",
        artifacts / "models" / model.model_id / "artifacts" / "data" / "model.keras",
        artifacts / "models" / model.model_id,
    ):
        assert tracker.find_finished(asked) is not None
        gone.rename(home / "elsewhere")
        assert tracker.find_finished(asked) is None, gone
        (home / "elsewhere").rename(gone)
    client.delete_logged_model(model.model_id)
    assert tracker.find_finished(asked) is None
    again = run_here(*SMOKE[1:])
    assert f"run {run.info.run_id} is finished, but damaged (missing: model/" in caplog.text
    assert again.run_id != first.run_id
    assert again.digest == first.digest


@pytest.mark.slow
def test_predictions_that_cannot_be_read_do_not_count(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run_here(*SMOKE[1:])
    (predictions,) = home.rglob("predictions.parquet")
    predictions.write_bytes(bytes(predictions.stat().st_size))
    assert run_here(*SMOKE[1:]).run_id != first.run_id
    assert "changed: evaluate/predictions.parquet" in caplog.text


@pytest.mark.slow
def test_a_file_that_cannot_grow_stops_the_run_cleanly(home: Path) -> None:
    """As on a full disk: the kernel refuses what is beyond the limit."""
    arguments = [*SMOKE, "model.hidden_width=2000"]  # a checkpoint of 19 MB

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))

    stopped = subprocess.run(command(*arguments), preexec_fn=limit, capture_output=True, text=True, check=False)
    assert stopped.returncode == 1
    (error,) = [line for line in stopped.stderr.splitlines() if line.startswith("error:")]
    assert "the checkpoint of epoch 1 cannot be written" in error
    assert "run the same command again" in error
    assert "Traceback" not in stopped.stderr
    assert [path.name for path in home.rglob("*") if ".checkpoint" in path.name] == []
    (run,) = all_runs(home)
    assert run.info.status == "FAILED"
    assert "the checkpoint of epoch 1 cannot be written" in run.data.tags["reason"]
