"""docs/your-own-data.md, run word by word in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline.config import compose

GUIDE = (ROOT / "docs" / "your-own-data.md").read_text()


def install(folder: Path, tmp_path: Path) -> dict[str, str]:
    """Install the wheel into a folder, with a command of its own; return the environment that uses it."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "bin").mkdir()
    script = folder / "bin" / "mnist-pipeline"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom mnist_pipeline.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return {"PYTHONPATH": str(folder), "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("place", ["checkout", pytest.param("wheel", marks=pytest.mark.slow)])
def test_the_guide_works_word_by_word(place: str, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MNIST_PIPELINE", "MLFLOW"))}
    if place == "checkout":
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "MNIST_PIPELINE_HOME": str(current)}
    else:
        environment = {**kept, **install(tmp_path / "site", tmp_path)}
    script = "\n".join(["set -e", *re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)])
    done = subprocess.run(
        ["bash", "-c", script], cwd=current, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
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
