"""docs/your-own-data.md, run word by word in an empty folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from guides import run_guide

from mnist_pipeline.config import compose

GUIDE = (ROOT / "docs" / "your-own-data.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("place", ["checkout", "wheel"])
def test_the_guide_works_word_by_word(place: str, tmp_path: Path) -> None:
    done, current = run_guide(GUIDE, place, tmp_path)
    assert done.returncode == 0, done.stderr
    (answer,) = re.findall(r"^\{.*\}$|(?<=\n)\{\"model\".*\}", done.stdout, re.MULTILINE)
    assert [one["picture"] for one in json.loads(answer)["predictions"]] == ["1.png", "1.png"]
    assert len((current / "predictions.csv").read_text().splitlines()) == 82
    assert (current / "mlruns" / "mlflow.db").is_file()


def test_every_option_that_the_guide_names_exists() -> None:
    options = set(re.findall(r"data=(\w+)", GUIDE)) - {"stripes"}
    assert options == {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")} - {"mnist", "digits"}
    known = set(compose.RUN.known_keys())
    named = set(re.findall(r"`(data\.\w+)[=`]", GUIDE))
    assert named - known == {"data.leaked_images"}  # a tag
