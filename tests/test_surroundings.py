"""Settings of other programs reach no run: the result is the same, to the bit."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli, command
from mlflow import MlflowClient

RUN = ["train", "data=digits", "train.num_epochs=1", "model.hidden_width=8", "force=true"]


def digest(output: str) -> str:
    (found,) = re.findall(r"^result digest +(\w+)$", output, re.MULTILINE)
    return str(found)


@pytest.mark.slow
def test_settings_of_other_programs_change_nothing(fresh_cli: Cli, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=other, check=True)
    (other / "matplotlibrc").write_text("text.usetex: True\nfont.size: 50\n")
    keras = {"backend": "torch", "floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}
    (other / "keras.json").write_text(json.dumps(keras))
    settings = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": f"{other}/matplotlibrc",
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(other),
        "TF_USE_LEGACY_KERAS": "1",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{other}/other.db",
        "MLFLOW_ACTIVE_MODEL_ID": "m-nope",
        "MLFLOW_RUN_ID": "x",
        "GIT_DIR": f"{other}/.git",
        "GIT_WORK_TREE": str(other),
    }
    expected, found = fresh_cli(*RUN), fresh_cli(*RUN, **settings)
    assert found.returncode == 0, found.stderr
    assert digest(found.stdout) == digest(expected.stdout)
    assert not (other / "other.db").exists()
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    first, second = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    commit = "mlflow.source.git.commit"
    assert first.data.tags.get(commit) == second.data.tags.get(commit)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_run_whose_accuracy_is_no_number_is_never_the_best(bad: float, cli: Cli, home: Path) -> None:
    for seed in (0, 1):
        assert cli(*RUN, f"train.seed={seed}").returncode == 0
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    first, second = sorted(found, key=lambda run: run.data.metrics["validation/accuracy"], reverse=True)
    client.log_metric(second.info.run_id, "validation/accuracy", bad, step=9)
    compared = cli("compare", "data=digits").stdout
    assert compared.index(first.info.run_name) < compared.index(second.info.run_name)
    assert "1 without a validation split, or with" in " ".join(compared.split())
    promoted = cli("promote", "data=digits", "promote.min_test_accuracy=0", "--dry-run")
    assert f"candidate {first.info.run_name}" in promoted.stderr
    assert f"{second.info.run_name} ({second.info.run_id[:8]}) is left out" in promoted.stderr


CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_harms_nothing(closed: str, home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
    script = f'"$@" {closed}'
    for words in (RUN, ["compare", "data=digits"]):
        arguments = ["sh", "-c", script, "sh", *command(*words)]
        done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    (run,) = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert list(tmp_path.glob("*.*")) == []


class People:
    """Users that the machine does not know, without a home, who share a folder by their group."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(mode=0o755)
        os.chown(home, 12345, 20000)
        home.chmod(0o2775)

    def run(self, user: int, *words: str, umask: int = 0o002) -> subprocess.CompletedProcess[str]:
        unknown = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TMPDIR")
        environment = {key: value for key, value in os.environ.items() if key not in unknown}
        can_read = "dac_read_search"  # the interpreter may lie where only root looks
        become = [
            "setpriv", f"--reuid={user}", "--regid=20000", "--clear-groups", f"--inh-caps=+{can_read}",
            f"--ambient-caps=+{can_read}", f"--bounding-set=-all,+{can_read}",
        ]  # fmt: skip
        return subprocess.run(
            [*become, *command(*words)],
            env={**environment, "MNIST_PIPELINE_HOME": str(self._home)},
            umask=umask,
            cwd="/tmp",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def people() -> Iterator[People]:
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("to become another user takes root and Linux's setpriv")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        yield People(Path(folder) / "shared")


@pytest.mark.slow
def test_two_users_without_home_and_name_share_a_store(people: People) -> None:
    for user in (12345, 12346):
        done = people.run(user, *RUN)
        assert done.returncode == 0, done.stderr
    for user, words in (
        (12346, ["promote", "data=digits", "promote.min_test_accuracy=0"]),
        (12345, ["history", "data=digits"]),
        (12345, ["report", "champion", "data=digits"]),
        (12346, ["doctor"]),
    ):
        done = people.run(user, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (words, done)


@pytest.mark.slow
def test_a_store_of_a_user_who_shares_nothing_can_be_read(people: People) -> None:
    assert people.run(12345, *RUN, umask=0o022).returncode == 0
    assert people.run(12346, "compare", "data=digits").returncode == 0
    refused = people.run(12346, *RUN)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "mlruns" in refused.stderr


@pytest.mark.slow
def test_a_clock_that_is_set_back_changes_no_result(fresh_cli: Cli, home: Path, tmp_path: Path) -> None:
    long = [*RUN[:2], "train.num_epochs=3", "model.hidden_width=8"]
    moment = "call mnist_pipeline.pipeline.checkpoints Checkpoints.save 2 after"
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_at.py")), moment, *long],
        start_new_session=True,
        check=False,
        capture_output=True,
        env={**os.environ, "MNIST_PIPELINE_HOME": str(home)},
    )
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfor name, hour in (('time', 3600), ('time_ns', 3600 * 10**9)):\n"
        "    setattr(time, name, lambda now=getattr(time, name), hour=hour: now() - hour)\n"
    )
    back = {"PYTHONPATH": str(tmp_path)}
    resumed = fresh_cli(*long, **back)
    assert "resume    after epoch 2 of 3" in resumed.stderr
    (run,) = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").search_runs(["1"])
    history = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").get_metric_history(run.info.run_id, "train/loss")
    last = max(history, key=lambda point: point.step)
    assert [point.step for point in sorted(history, key=lambda point: point.step)] == [1, 2, 3]
    assert last.timestamp < min(point.timestamp for point in history if point.step < 3)
    assert run.data.metrics["train/loss"] == last.value
    forced = fresh_cli(*long, "force=true", **back)
    assert digest(resumed.stdout) == digest(forced.stdout)
    assert fresh_cli("promote", "data=digits", "promote.min_test_accuracy=0").returncode == 0
    assert fresh_cli("rollback", "data=digits", "--reason", "x", **back).returncode == 1  # nothing to go back to
    assert fresh_cli("history", "data=digits", **back).returncode == 0
    assert fresh_cli("doctor", **back).returncode == 0
