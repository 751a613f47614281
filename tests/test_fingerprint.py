import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline.config import compose
from mnist_pipeline.pipeline import fingerprint, sources

PACKAGE = ROOT / "src" / "mnist_pipeline"


def of(*overrides: str, data_digest: str = "d") -> str:
    return fingerprint.fingerprint(compose.compose(list(overrides)), data_digest=data_digest)


def test_it_is_a_sha256_that_stays_the_same() -> None:
    assert len(of()) == 64
    assert of() == of()


@pytest.mark.parametrize(
    "override",
    ["train.seed=1", "train.num_epochs=3", "train.num_threads=2", "model.hidden_width=64", "data.split_seed=1",
     "data.validation_size=0", "evaluate.num_mistakes=9", "data=digits"],
)  # fmt: skip
def test_everything_that_decides_the_result_changes_it(override: str) -> None:
    assert of(override) != of()


@pytest.mark.parametrize(
    "override",
    ["tracking.experiment=other", "data.fallback=null", "data.npz_url=http://127.0.0.1/x.npz", "data.num_retries=0",
     "train.checkpoint_every=3", "force=true", "wait=true"],
)  # fmt: skip
def test_nothing_else_changes_it(override: str) -> None:
    assert of(override) == of()


def test_other_data_change_it() -> None:
    assert of(data_digest="e") != of()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, in a folder of its own, that may be edited."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "mnist_pipeline"))


def digest(package: Path) -> str:
    return fingerprint.code_digest(search_path=[str(package.parent), *sys.path])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_layout_void_nothing(package: Path) -> None:
    before = digest(package)
    assert before == fingerprint.code_digest()
    edit(package / "train" / "optimizers.py", "class _Adam:\n", "# a remark\n\n\nclass _Adam:\n")
    edit(package / "train" / "optimizers.py", '"""Take one step.', '"""Take a single step.')
    edit(package / "config" / "sections.py", '"""Passes over the training images."""', '"""Rounds."""')
    assert digest(package) == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("train/optimizers", "1e-7", "1e-8"),
        ("model/dense", "1 / 255", "1 / 256"),
        ("data/mnist", "60_000", "60_001"),
        ("config/sections", "2**31", "2**30"),  # imported by stages, but not a stage
        ("data/__init__", '"""', 'x = 1\n"""'),
    ],
)
def test_a_change_in_an_imported_module_changes_it(module: str, old: str, new: str, package: Path) -> None:
    before = digest(package)
    edit(package / f"{module}.py", old, new)
    assert digest(package) != before


@pytest.mark.parametrize(
    "module",
    ["pipeline/run", "pipeline/stages", "cli/commands", "cli/errors", "system/console", "system/text",
     "tracking/tracker", "plotting", "evaluate/figures"],
)  # fmt: skip
def test_modules_that_decide_nothing_are_left_out(module: str, package: Path) -> None:
    before = digest(package)
    assert (package / f"{module}.py").is_file()
    (package / f"{module}.py").write_text("x = 1\n")
    assert digest(package) == before


@pytest.mark.parametrize(
    "statement",
    ["import mine", "import mine.layers", "from mine import layers", "from mine.layers import x", "from . import extra",
     "from .extra import x", "from ..model import extra", "from mnist_pipeline.model.extra import x"],
)  # fmt: skip
def test_modules_of_the_user_are_seen_however_they_are_imported(statement: str, package: Path) -> None:
    mine = package.parent / "mine"
    mine.mkdir()
    (mine / "__init__.py").write_text("from . import layers\n")
    files = [mine / "layers.py", package / "model" / "extra.py"]
    for file in files:
        file.write_text("x = 1\n")
    (changed,) = [file for file in files if file.parent.name in statement or file.stem in statement][:1]
    edit(package / "model" / "dense.py", "import keras\n", f"import keras\n{statement}\n")
    before = digest(package)
    changed.write_text("x = 2\n")
    assert digest(package) != before


def test_installed_distributions_are_left_to_their_versions() -> None:
    found = sources.find_deciding_modules()
    assert {name.partition(".")[0] for name in found} == {"mnist_pipeline"}


def test_every_module_of_ours_that_a_stage_loads_is_hashed() -> None:
    hashed = sources.find_deciding_modules()
    stages = [name for name in hashed if name.split(".")[1:2] and name.split(".")[1] in sources.STAGE_ROOMS]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {stages}]; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    loaded = {name for name in found if name.partition(".")[0] == "mnist_pipeline"}
    assert len(stages) > 10
    assert loaded <= set(hashed)


def test_tensorflow_is_not_imported_for_it() -> None:
    code = (
        "import sys; from mnist_pipeline.config import compose; from mnist_pipeline.pipeline import fingerprint;"
        "fingerprint.fingerprint(compose.compose([]), data_digest='d');"
        "print({'numpy', 'tensorflow', 'keras', 'mlflow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
