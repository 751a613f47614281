"""A function of the user's own as a data set: its parameters are the keys, and its source decides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

from mnist_pipeline.config import compose, functions
from mnist_pipeline.config.sections import Config
from mnist_pipeline.data import catalogue
from mnist_pipeline.pipeline import fingerprint
from mnist_pipeline.pipeline.names import name_run
from mnist_pipeline.system.errors import ConfigError

SOURCE = """
import numpy as np
import {extra}
from typing import Literal

from mnist_pipeline import Images
from {package}.noise import LEVEL

SIZE = 8

def load(*, num_images: int = 60, size: int = SIZE, kind: Literal["plain", "noisy"] = "plain", seed: int | None = None,
         names: list[str] = ["down", "up"]) -> Images:
    if size > 64:
        raise ValueError(f"data.size={{size}}: expected at most 64")
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    images = random.integers(0, LEVEL, (num_images, size, size), np.uint8)
    images[labels == 1] += 100
    return Images(images, labels, class_names=names)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package in the current folder, and a configuration beside it that names its function."""
    name = f"own_{abs(hash(request.node.name)) % 10**8}"  # each test its own: Python imports a module once
    work = tmp_path / "work"
    (work / name).mkdir(parents=True)
    (work / name / "__init__.py").write_text("")
    (work / name / "noise.py").write_text("LEVEL = 100\n")
    (work / name / "my_data.py").write_text(SOURCE.format(extra="math", package=name))
    (work / "own" / "data").mkdir(parents=True)
    (work / "own" / "data" / "mine.yaml").write_text(f"_target_: {name}.my_data.load\n")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    return name


def composed(*overrides: str) -> Config:
    return compose.check(["data=mine", *overrides], config_dir="own")[0]


def test_its_parameters_are_keys_with_its_defaults(package: str, home: Path) -> None:
    data = composed("data.kind=noisy", "data.size=10").data
    assert data.arguments == {
        "num_images": 60, "size": 10, "kind": "noisy", "seed": None, "names": ["down", "up"],
    }  # fmt: skip
    assert (data.name, data.validation_size) == ("mine", 0.1)
    assert name_run(composed()) == "mine-dense-e9-s0"
    found = catalogue.find(composed("data.seed=3").data)
    assert (found.class_names, found.learn.images.shape) == (("down", "up"), (48, 8, 8))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sise=3", "unknown key data.sise: did you mean data.size?"),
        ("data.size=wide", "data.size=wide: expected an integer"),
        ("data.kind=odd", "data.kind=odd: expected plain or noisy"),
        ("data.names=[1,{a:2}]", "data.names"),
        ("data.validation_size=-1", "data.validation_size=-1"),
    ],
)
def test_a_wrong_key_is_refused_without_importing_it(override: str, message: str, package: str, home: Path) -> None:
    module = Path(package) / "my_data.py"
    module.write_text(module.read_text().replace("import math", "import no_such_library"))
    with pytest.raises(ConfigError) as caught:
        composed(override)
    assert message in str(caught.value)
    assert f"{package}.my_data" not in sys.modules


def test_its_own_refusal_is_bad_configuration(package: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=r"data=mine: data.size=65: expected at most 64"):
        catalogue.find(composed("data.size=65").data)


@pytest.mark.parametrize("file", ["my_data.py", "noise.py", "__init__.py"])
def test_its_source_and_what_it_imports_are_in_the_fingerprint(file: str, package: str, home: Path) -> None:
    module = f"{package}.my_data"
    before, without = fingerprint.code_digest([module]), fingerprint.code_digest()
    path = Path(package) / file
    path.write_text(f"{path.read_text()}\nCHANGED = 1\n")
    assert fingerprint.code_digest([module]) != before
    assert fingerprint.code_digest() == without


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(): ...", "defines no function load"),
        ("def load(size): ...", "size has no type"),
        ("def load(x: np.ndarray = None): ...", "np.ndarray"),
        ("def load(*, size: int = compute()): ...", "the default of size"),
        ("def load(**keys): ...", "**kwargs"),
        ("def load(*, name: str = 'a'): ...", "data.name is a key of every data set"),
        ("def load(:", "line 1: invalid syntax: def load(:"),
    ],
)
def test_a_function_that_cannot_be_configured_is_refused(source: str, message: str, package: str, home: Path) -> None:
    (Path(package) / "my_data.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        composed()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_that_is_not_there_is_refused(package: str, home: Path) -> None:
    for target in (f"{package}.nothing.load", "load", "no such.thing"):
        with pytest.raises(ConfigError):
            functions.read(target, key="data._target_")


def test_it_returns_images_and_nothing_else(package: str, home: Path) -> None:
    module = Path(package) / "my_data.py"
    module.write_text("def load() -> int:\n    return 3\n")
    with pytest.raises(ConfigError, match=r"returned int: expected mnist_pipeline.Images"):
        catalogue.find(composed().data)


@pytest.mark.slow
def test_a_run_on_it_from_the_command_to_the_champion(package: str, cli: Cli, home: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "mnist-pipeline"), *words]
        done = subprocess.run(
            command,
            env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    arguments = ["--config-dir", "own", "data=mine", "data.seed=1", "train.num_epochs=3", "model.hidden_width=8"]
    first = call("train", *arguments)
    assert "mine-dense-w8-e3-s0" in first.stdout
    again = call("train", *arguments)
    assert "the same fingerprint" in again.stderr
    shown = call("promote", "data.name=mine", "promote.min_test_accuracy=0.3")
    assert "version 1 is the champion" in shown.stdout
