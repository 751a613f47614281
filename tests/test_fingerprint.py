import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline.config import compose
from mnist_pipeline.pipeline import fingerprint

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
def test_what_decides_the_result_changes_it(override: str) -> None:
    assert of(override) != of()


@pytest.mark.parametrize(
    "override",
    ["tracking.experiment=other", "data.fallback=null", "data.npz_url=http://127.0.0.1/x.npz", "data.num_retries=0",
     "train.checkpoint_every=3", "force=true", "wait=true"],
)  # fmt: skip
def test_what_does_not_decide_the_result_leaves_it(override: str) -> None:
    assert of(override) == of()


def test_other_data_change_it() -> None:
    assert of(data_digest="e") != of()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_layout_void_nothing(package: Path) -> None:
    before = fingerprint.code_digest(package)
    assert before == fingerprint.code_digest()
    edit(package / "train.py", "class Adam:\n", "# a remark\n\n\nclass Adam:\n")
    edit(package / "train.py", '"""Take one step."""', '"""Take a single step."""')
    edit(package / "config.py", '"""Units of the hidden layer."""', '"""Neurons of the hidden layer."""')
    assert fingerprint.code_digest(package) == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("train", "EPSILON = 1e-7", "EPSILON = 1e-8"),
        ("model", "1 / 255", "1 / 256"),
        ("mnist", "2**20", "2**21"),
    ],
)
def test_a_change_of_code_is_seen_even_in_what_is_imported(module: str, old: str, new: str, package: Path) -> None:
    before = fingerprint.code_digest(package)
    edit(package / f"{module}.py", old, new)
    assert fingerprint.code_digest(package) != before


@pytest.mark.parametrize("module", ["pipeline", "console", "cli", "tracking", "figures"])
def test_modules_that_decide_nothing_are_left_out(module: str, package: Path) -> None:
    before = fingerprint.code_digest(package)
    (package / f"{module}.py").write_text("x = 1\n")
    assert fingerprint.code_digest(package) == before


def test_tensorflow_is_not_imported_for_it() -> None:
    code = (
        "import sys; from mnist_pipeline import composing, fingerprint;"
        "fingerprint.fingerprint(composing.compose([]), data_digest='d');"
        "print({'numpy', 'tensorflow', 'keras', 'mlflow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
