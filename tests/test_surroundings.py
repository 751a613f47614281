"""Settings of other programs reach no run: the result is the same, to the bit."""

import json
import re
import subprocess
from pathlib import Path

from conftest import Cli
from mlflow import MlflowClient

RUN = ["train", "data=digits", "train.num_epochs=1", "model.hidden_width=8", "force=true"]


def digest(output: str) -> str:
    (found,) = re.findall(r"^result digest +(\w+)$", output, re.MULTILINE)
    return str(found)


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
