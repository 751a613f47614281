"""Settings of other programs reach no run: the result is the same, to the bit."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import Cli
from mlflow import MlflowClient

RUN = ["train", "data=digits", "train.num_epochs=1", "model.hidden_width=8", "force=true"]


def digest(output: str) -> str:
    (found,) = re.findall(r"^result digest +(\w+)$", output, re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """The digest that the first of the runs has."""
    return {}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "KERAS_BACKEND": "torch",
            "TF_USE_LEGACY_KERAS": "1",
        },
        {"MATPLOTLIBRC": "{folder}/matplotlibrc", "KERAS_HOME": "{folder}/keras"},
        {
            "MLFLOW_REGISTRY_URI": "sqlite:///{folder}/other.db",
            "MLFLOW_ACTIVE_MODEL_ID": "m-nope",
            "MLFLOW_RUN_ID": "x",
        },
    ],
)
def test_settings_of_other_programs_change_nothing(
    settings: dict[str, str], fresh_cli: Cli, home: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 50\n")
    (tmp_path / "keras").mkdir(exist_ok=True)
    own = {"backend": "torch", "floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}
    (tmp_path / "keras" / "keras.json").write_text(json.dumps(own))
    found = fresh_cli(*RUN, **{name: value.format(folder=tmp_path) for name, value in settings.items()})
    assert found.returncode == 0, found.stderr
    assert expected.setdefault("digest", digest(found.stdout)) == digest(found.stdout)
    assert not (tmp_path / "other.db").exists()


def test_a_hook_of_another_repository_gives_a_run_no_commit(cli: Cli, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=other, check=True)
    theirs = subprocess.run(["git", "rev-parse", "HEAD"], cwd=other, capture_output=True, text=True, check=True).stdout
    assert cli(*RUN, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other)).returncode == 0
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.data.tags.get("mlflow.source.git.commit") != theirs.strip()


def test_a_run_whose_accuracy_is_no_number_is_never_the_best(cli: Cli, home: Path) -> None:
    for seed in (0, 1):
        assert cli(*RUN, f"train.seed={seed}").returncode == 0
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    first, second = sorted(found, key=lambda run: run.data.metrics["validation/accuracy"], reverse=True)
    client.log_metric(second.info.run_id, "validation/accuracy", float("nan"), step=9)
    promoted = cli("promote", "data=digits", "promote.min_test_accuracy=0", "--dry-run")
    assert f"candidate {first.info.run_name}" in promoted.stderr
    assert f"{second.info.run_name} ({second.info.run_id[:8]}) is left out" in promoted.stderr
