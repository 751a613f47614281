"""The guides in docs/, run word by word in an empty folder."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import ROOT
from filelock import FileLock


def run_guide(text: str, place: str, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the commands of a guide with the package of the "checkout" or from a "wheel"; return the folder too."""
    current = tmp_path / "current"
    current.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MNIST_PIPELINE", "MLFLOW"))}
    if place == "checkout":
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "MNIST_PIPELINE_HOME": str(current)}
    else:
        environment = {**kept, **install(tmp_path / "site", tmp_path)}
    script = "\n".join(["set -e", *re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)])
    with FileLock(tmp_path.parent.parent / "guide.lock"):  # the guides name the ports of their servers
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=current,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    return done, current


def install(folder: Path, tmp_path: Path) -> dict[str, str]:
    """Install the wheel into a folder, with a command of its own; return the environment that uses it."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "bin").mkdir()
    script = folder / "bin" / "mnist-pipeline"
    # As installers write it. Workers import it too, so it must not begin the command once more there.
    call = 'if __name__ == "__main__":\n    sys.exit(main())\n'
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom mnist_pipeline.cli import main\n{call}")
    script.chmod(0o755)
    return {"PYTHONPATH": str(folder), "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
