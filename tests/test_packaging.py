import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline.system import paths


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_carries_the_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("mnist_pipeline/conf/")}
    assert packed == {f"mnist_pipeline/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}


def test_the_packaged_configuration_is_used_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    installed, current = tmp_path / "site", tmp_path / "current"
    current.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    config = installed / "mnist_pipeline" / "conf" / "model" / "dense.yaml"
    config.write_text(config.read_text().replace("hidden_width: 128", "hidden_width: 77"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MNIST_PIPELINE")}
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from mnist_pipeline import cli; from mnist_pipeline.system import paths;"
            "print(paths.home(), paths.conf_dir());"
            "sys.argv[1:] = ['train', '--cfg', 'job']; cli.main()",
        ],
        cwd=current,
        env={**environment, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines()[0] == f"{current} {installed}/mnist_pipeline/conf"
    assert "hidden_width: 77" in found.stdout


def test_the_configuration_of_a_checkout_wins() -> None:
    assert paths.checkout() == ROOT
    assert paths.conf_dir() == ROOT / "conf"


@pytest.mark.parametrize(("lock", "least"), [("requirements.lock", 100), ("requirements-tools.lock", 2)])
def test_the_locks_pin_everything_with_hashes_and_name_no_index(lock: str, least: int) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert not [line for line in lines if line.startswith(("#", "-")) or "://" in line]
    pinned = [line for line in lines if not line.startswith(" ")]
    assert len(pinned) >= least
    assert all("==" in line and line.endswith("\\") for line in pinned)


def test_the_lock_has_the_required_packages() -> None:
    pinned = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith(" ")]
    names = {line.split("==")[0] for line in pinned}
    assert names >= {"tensorflow", "mlflow", "hydra-core", "optuna", "pandas", "pytest", "ruff", "mypy"}


def test_everything_the_makefile_installs_has_a_hash() -> None:
    installing = re.findall(r"pip install (?:[^\n\\]|\\\n)*", (ROOT / "Makefile").read_text())
    assert len(installing) == 3
    assert all(
        "--require-hashes" in line or "--no-deps --no-build-isolation --editable ." in line for line in installing
    )
