"""A store that version 0.1 made can still be used, once `doctor --fix` has moved it."""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Cli
from PIL import Image

from mnist_pipeline.cli.compare import compare
from mnist_pipeline.cli.diff import diff
from mnist_pipeline.cli.doctor import doctor
from mnist_pipeline.cli.history import history
from mnist_pipeline.cli.predict import predict
from mnist_pipeline.cli.promote import promote
from mnist_pipeline.cli.report import report
from mnist_pipeline.registry import settings
from mnist_pipeline.serving import champion
from mnist_pipeline.system.errors import RefusedError, UserError
from mnist_pipeline.tracking.mlflow_store import MlflowStore

OVERRIDES = ["data=digits"]
CHAMPION = "digits-w16-d0.2-e3-s1"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """The unpacked home; `home` takes the environment of whoever runs the tests away."""
    with tarfile.open(ROOT / "tests" / "data" / "store-0.1.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture
def repaired(old: Path) -> Path:
    doctor(["--fix"])
    return old


def test_it_is_recognised_as_moved(old: Path) -> None:
    with pytest.raises(UserError, match="doctor --fix"):
        compare(OVERRIDES)


def test_runs_are_compared_and_shown(
    repaired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = tmp_path / "runs.csv"
    compare([*OVERRIDES, "--output", str(table)])
    assert {"digits-w8-d0.2-e3-s0", "digits-w16-d0.2-e3-s0", CHAMPION} <= set(pd.read_csv(table)["name"])
    diff(["digits-w8-d0.2-e3-s0", CHAMPION])
    history(OVERRIDES)
    shown = capsys.readouterr().out
    assert "promoted" in shown
    assert "refused" in shown


def test_reports_have_everything_that_was_logged(repaired: Path, tmp_path: Path) -> None:
    for name in ("champion", CHAMPION):
        page = tmp_path / f"{name}.html"
        report([name, *OVERRIDES, "--output", str(page)])
        assert "missing" not in page.read_text()
    study = tmp_path / "study.html"
    report(["old", *OVERRIDES, "--output", str(study)])
    assert "verdict" in study.read_text().lower()


def test_its_champion_predicts_and_is_served(repaired: Path, tmp_path: Path) -> None:
    loaded = champion.load(MlflowStore(settings.read(OVERRIDES).tracking), "digits-classifier")
    assert loaded.version == 1
    assert loaded.predict(np.zeros((2, 28, 28), np.uint8)).shape == (2, 10)
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 12:16] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predict([str(tmp_path / "a.png"), *OVERRIDES, "--output", str(tmp_path / "found.csv")])
    assert len(pd.read_csv(tmp_path / "found.csv")) == 1


def test_its_runs_are_promoted_only_through_the_gates(repaired: Path) -> None:
    promote(["champion", *OVERRIDES, "promote.min_test_accuracy=0.1"])  # it is the champion already
    with pytest.raises(RefusedError):
        promote(["digits-w8-d0.2-e3-s0", *OVERRIDES, "promote.min_test_accuracy=0.1"])


def test_new_runs_go_into_it(repaired: Path, cli: Cli) -> None:
    before = set((repaired / "mlruns" / "artifacts" / "digits").iterdir())
    arguments = ("train", "preset=smoke", "model.hidden_width=16", "train.num_epochs=3")
    found = cli(*arguments, MNIST_PIPELINE_HOME=str(repaired))
    assert found.returncode == 0, found.stderr
    assert "epoch 3/3" in found.stderr  # the code has changed since: version 0.1 has no result of it
    assert len(set((repaired / "mlruns" / "artifacts" / "digits").iterdir()) - before) == 1
