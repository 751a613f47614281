"""docs/your-own-model.md, run word by word in an empty folder, and what a function of the user's may do wrong."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from guides import run_guide
from mlflow import MlflowClient

GUIDE = (ROOT / "docs" / "your-own-model.md").read_text()


@pytest.mark.parametrize("place", ["checkout", pytest.param("wheel", marks=pytest.mark.slow)])
def test_the_guide_works_word_by_word(place: str, tmp_path: Path) -> None:
    done, current = run_guide(GUIDE, place, tmp_path)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{current}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=100)
    trained = {run.info.run_name: run for run in found if run.data.tags.get("kind") == "train"}
    assert set(trained) == {
        "digits-mlp-w64x32-e3-s0",
        "digits-conv-filters8x16-cosine-e3-s0",
        "digits-scaled-width32-depth1-e4-s0",
    }
    own = trained["digits-scaled-width32-depth1-e4-s0"].data
    assert (own.params["model.width"], own.params["model.depth"]) == ("32", "1")
    trials = [run.data.params for run in found if run.data.tags.get("kind") == "trial"]
    assert {params["model.name"] for params in trials} >= {"scaled", "dense"}
    assert all("model.hidden_width" not in params for params in trials if params["model.name"] != "dense")


def test_every_option_that_the_guide_names_exists() -> None:
    assert set(re.findall(r"model=(\w+)", GUIDE)) - {"scaled"} == {
        path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")
    }
    for group in ("optimizer", "schedule"):
        (line,) = re.findall(rf"^\| `train.{group}` \|(.*)$", GUIDE, re.MULTILINE)
        options = {path.stem for path in (ROOT / "conf" / "train" / group).glob("*.yaml")}
        assert options <= set(re.findall(r"`(\w+)`", line))
