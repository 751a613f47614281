"""docs/your-own-model.md, run word by word in an empty folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from guides import run_guide
from mlflow import MlflowClient
from mlflow.entities import Run

GUIDE = (ROOT / "docs" / "your-own-model.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_the_guide_works_word_by_word(place: str, tmp_path: Path) -> None:
    done, current = run_guide(GUIDE, place, tmp_path)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{current}/mlruns/mlflow.db")

    def trained(data: str, kind: str = "train") -> dict[str, Run]:
        experiment = client.get_experiment_by_name(data)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")
        return {run.info.run_name: run for run in found}

    assert set(trained("digits")) == {
        "digits-mlp-w64x32-e3-s0",
        "digits-conv-filters8x16-cosine-e3-s0",
        "digits-scaled-width32-depth1-e4-s0",
    }
    own = trained("digits")["digits-scaled-width32-depth1-e4-s0"].data
    assert (own.params["model.width"], own.params["model.depth"]) == ("32", "1")
    trials = [run.data.params for run in trained("digits", "trial").values()]
    assert {params["model.name"] for params in trials} == {"conv", "dense"}
    assert all("model.hidden_width" not in params for params in trials if params["model.name"] == "conv")

    first, again = re.findall(r"^result digest +(\w+)$", done.stdout, re.MULTILINE)[3:5]
    assert first == again
    assert re.search(r"^resume +(after epoch \d+ of 60|the same run)", done.stderr, re.MULTILINE)
    versions = {int(one.version): one.run_id for one in client.search_model_versions("name = 'rings-classifier'")}
    champion = client.get_model_version_by_alias("rings-classifier", "champion")
    assert set(versions) == {1, 2}
    assert int(champion.version) == 2
    assert client.get_run(versions[1]).data.params["model.name"] == "dense"
    assert client.get_run(versions[2]).data.params["model.name"] == "scaled"
    answer = re.search(r'\{"model".*\}', done.stdout)
    assert answer is not None
    assert json.loads(answer[0])["predictions"][0]["class"] in ("disc", "ring")


def test_every_option_that_the_guide_names_exists() -> None:
    assert set(re.findall(r"model=(\w+)", GUIDE)) - {"scaled"} == {
        path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")
    }
    for group in ("optimizer", "schedule"):
        (line,) = re.findall(rf"^\| `train.{group}` \|(.*)$", GUIDE, re.MULTILINE)
        options = {path.stem for path in (ROOT / "conf" / "train" / group).glob("*.yaml")}
        assert options <= set(re.findall(r"`(\w+)`", line))
