"""A tracked run is trained again: identical to the bit, or the first difference is named, and what has changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Cli, command, digits_arrays, server
from mlflow import MlflowClient
from mlflow.entities import Run
from sweep_home import sweep_here

from mnist_pipeline.pipeline.reproduction import compare_epochs, compare_weights
from mnist_pipeline.tracking.record import Point

SMOKE = ["data=digits", "train.num_epochs=2", "model.hidden_width=16"]
NAME = "digits-dense-w16-e2-s0"


def runs(home: Path, kind: str, experiment: str = "digits") -> list[Run]:
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], f"tags.kind = '{kind}'"))


def artifact(home: Path, run: Run, path: str) -> Path:
    experiment = str(MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").get_experiment(run.info.experiment_id).name)
    return home / "mlruns" / "artifacts" / experiment / str(run.info.run_id) / "artifacts" / path


def test_a_run_is_reproduced_to_the_bit(cli: Cli, home: Path) -> None:
    assert cli("train", *SMOKE).returncode == 0
    found = cli("reproduce", NAME, "data=digits")
    assert found.returncode == 0, found.stderr
    assert "every bit of the result is the same" in found.stdout
    (original,), (again,) = runs(home, "train"), runs(home, "reproduction")
    assert again.data.tags["reproduction.of"] == original.info.run_id
    assert again.data.tags["result.digest"] == original.data.tags["result.digest"]
    for run in (original, again):
        assert run.data.tags["reproduction.verdict"] == "identical"
        verdict = json.loads(artifact(home, run, "reproduction/verdict.json").read_text())
        assert verdict["is_identical"] is True
        assert [one["part"] for one in verdict["changes"]] == ["data", "code", "versions", "processor", "settings"]
        assert [one["part"] for one in verdict["results"]] == ["epochs", "weights", "test", "predictions"]
        assert all(one["is_same"] for one in (*verdict["changes"], *verdict["results"]))

    # A verdict is no damage, and reports show it; a second reproduction is a new run.
    assert "has the same fingerprint" in cli("train", *SMOKE).stderr
    assert cli("report", NAME, "data=digits", "--output", "page.html").returncode == 0
    assert "was trained again as run" in next(Path(home.parent).rglob("page.html")).read_text()
    assert cli("reproduce", original.info.run_id, "data=digits").returncode == 0
    assert len(runs(home, "reproduction")) == 2
    assert list((home / "mlruns" / "checkpoints").glob("*/*")) == []


@pytest.mark.slow
def test_what_has_changed_is_named_before_the_training(cli: Cli, home: Path, tmp_path: Path) -> None:
    arrays = digits_arrays()
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
    words = ["data=arrays", f"data.path={tmp_path}/mine.npz", *SMOKE[1:]]
    assert cli("train", *words).returncode == 0
    (original,) = runs(home, "train", "mine")
    identity = artifact(home, original, "environment/identity.json")
    known = json.loads(identity.read_text())
    assert "mnist_pipeline.train.trainer" in known["code"]
    known["versions"]["keras"] = "1.2.3"
    known["code"]["mnist_pipeline.train.gone"] = "0" * 64
    identity.write_text(json.dumps(known))
    arrays["x_train"][0] = 255 - arrays["x_train"][0]
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]

    found = cli("reproduce", original.info.run_id)
    assert (found.returncode, found.stderr.splitlines()[-1].split(":")[0]) == (1, "error")
    before, _, after = found.stdout.partition("The result, then and now")
    assert "images and labels has changed" in before
    assert "keras was 1.2.3, is" in before
    assert "mnist_pipeline.train.gone is gone" in before
    assert "Changed since: data, code, versions" in before
    assert "epoch 1" in after
    assert "images have another class" in after
    (again,) = runs(home, "reproduction", "mine")
    assert again.data.tags["reproduction.verdict"] == "different"


@pytest.mark.slow
def test_a_run_on_a_server_is_reproduced(cli: Cli, home: Path, tmp_path: Path) -> None:
    with server(tmp_path / "server.db", tmp_path / "server") as address:
        uri = f"tracking.uri={address}"
        assert cli("train", *SMOKE, uri).returncode == 0
        found = cli("reproduce", NAME, "data=digits", uri)
        assert found.returncode == 0, found.stderr
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("digits")
        assert experiment is not None
        kinds = [run.data.tags["kind"] for run in client.search_runs([experiment.experiment_id])]
        assert sorted(kinds) == ["reproduction", "train"]
        for run in client.search_runs([experiment.experiment_id]):
            assert run.data.tags["reproduction.verdict"] == "identical"
            text = client.download_artifacts(run.info.run_id, "reproduction/verdict.json", str(tmp_path))
            assert json.loads(Path(text).read_text())["is_identical"] is True


@pytest.mark.slow
def test_another_setting_of_the_library_is_named(fresh_cli: Cli, home: Path) -> None:
    assert fresh_cli("train", *SMOKE).returncode == 0
    found = fresh_cli("reproduce", NAME, "data=digits", TF_ENABLE_ONEDNN_OPTS="0")
    assert "TF_ENABLE_ONEDNN_OPTS is new" in found.stdout
    assert found.returncode == 1  # other kernels round otherwise
    assert "from epoch 1 on" in found.stdout


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs a git checkout")
def test_the_code_and_the_versions_of_a_run_are_brought_back(home: Path, tmp_path: Path) -> None:
    """In a clone whose code changes after the run; its worktree gets a .venv of its own."""
    clone = tmp_path / "clone"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*words), env=environment, capture_output=True, text=True, check=False)

    preset = clone / "conf" / "preset" / "mine.yaml"
    preset.write_text("# @package _global_\ntrain: {num_epochs: 2}\n")  # an uncommitted change, kept as a patch
    assert call("train", *SMOKE, "preset=mine").returncode == 0
    preset.unlink()
    source = clone / "src" / "mnist_pipeline" / "model" / "dense.py"
    source.write_text(source.read_text().replace("GlorotUniform", "HeUniform"))
    subprocess.run(["git", "-C", str(clone), *identity, "commit", "-qam", "other weights"], check=True)

    plain = call("reproduce", NAME, "data=digits")
    assert plain.returncode == 1
    assert "mnist_pipeline.model.dense has changed" in plain.stdout
    again = call("reproduce", NAME, "data=digits", "--worktree")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "every bit of the result is the same" in again.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the sweep's tests look for processes in /proc")
def test_the_trainings_of_a_sweep_are_reproduced(cli: Cli, home: Path) -> None:
    sweep_here(
        "data=digits", "sweep.num_trials=2", "sweep.num_workers=1", "sweep.space.train=null", "train.num_epochs=2",
        "sweep.confirm.top_k=1", "sweep.confirm.num_seeds=2", "sweep.confirm.max_seeds=2",
        "sweep.space.model.hidden_width.high=32",
    )  # fmt: skip
    for kind in ("trial", "confirm", "final"):
        original = runs(home, kind)[0]
        found = cli("reproduce", original.info.run_id, "data=digits")
        assert found.returncode == 0, found.stderr
        again = next(
            run for run in runs(home, "reproduction") if run.data.tags["reproduction.of"] == original.info.run_id
        )
        assert ("test/accuracy" in again.data.metrics) is (kind == "final")
    (parent,) = runs(home, "sweep")
    refused = cli("reproduce", parent.info.run_id, "data=digits")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "is a sweep: name a finished run" in refused.stderr


def test_what_cannot_be_reproduced_is_one_line(cli: Cli, home: Path) -> None:
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    experiment = client.create_experiment("digits")
    running = client.create_run(experiment, run_name="running", tags={"kind": "train"})
    old = client.create_run(experiment, run_name="old", tags={"kind": "train"})
    client.log_text(old.info.run_id, "model:\n  name: dense\n  hidden_width: 16\n", "config/config.yaml")
    bare = client.create_run(experiment, run_name="bare", tags={"kind": "train"})
    for run in (old, bare):
        client.set_terminated(run.info.run_id)
    for name, message in (
        ("running", "is a RUNNING run"),
        ("old", "cannot be read by this version"),
        ("bare", "logged no configuration"),
        ("nobody", "no run has this id or name"),
    ):
        found = cli("reproduce", name, "data=digits")
        assert (found.returncode, found.stderr.count("\n")) == (1, 1), found.stderr
        assert message in found.stderr
    assert cli("reproduce", "a", "b").returncode == 2
    assert len(client.search_runs([experiment])) == 3
    client.set_terminated(running.info.run_id)


def test_the_first_difference_is_found() -> None:
    def point(number: int, loss: float) -> Point:
        return Point(number, {"train/loss": loss, "time/epoch_sec": float(number)}, ended_ms=0)

    same = [point(1, 0.5), point(2, 0.25)]
    assert compare_epochs(same, [point(1, 0.5), Point(2, {"train/loss": 0.25, "time/epoch_sec": 9.0}, 7)]).is_same
    found = compare_epochs(same, [point(1, 0.5), point(2, 0.25000001)])
    assert found.is_same is False
    assert "from epoch 2 on: train/loss 0.25, now 0.25000001" in found.detail
    assert "2 epochs, now 1" in compare_epochs(same, same[:1]).detail
    assert compare_epochs([], same).is_same is None
    weights = [np.zeros((2, 2), np.float32), np.ones(3, np.float32)]
    assert compare_weights(weights, [array.copy() for array in weights]).is_same
    other = [weights[0], np.array([1, 1, 1.5], np.float32)]
    assert "differ by up to 0.5" in compare_weights(weights, other).detail
    assert compare_weights(weights, weights[:1]).is_same is False
