"""A store with two champions, whose files a test may damage."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import mlflow
import yaml
from conftest import digits_config
from test_plain_yaml import BOMB

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.registry.promote import Promotion, promote
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.settings import PromoteConfig, RegistryConfig
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker

MODEL = "digits-classifier"
BOUNDS = PromoteConfig(alpha=0.05, min_test_accuracy=0.1, max_model_bytes=10_000_000, max_recall_drop=0.5)
FIRST = ["data=digits", "model.hidden_width=8", "train.num_epochs=2"]
SECOND = ["data=digits", "model.hidden_width=64", "train.num_epochs=8"]


@dataclass(frozen=True)
class Home:
    """A store in which version 1 was the champion, and version 2 is."""

    folder: Path
    first: str
    second: str

    @property
    def store(self) -> MlflowStore:
        return MlflowStore(self.where.tracking)

    @property
    def where(self) -> RegistryConfig:
        uri = store.sqlite_uri(self.folder / "mlruns" / "mlflow.db")
        return RegistryConfig(digits_config(), TrackingConfig(uri=Address(uri), experiment="digits"), wait=False)

    def model(self, run_id: str) -> Path:
        """The folder of a run's model."""
        (output,) = self.store.client.get_run(run_id).outputs.model_outputs
        return _local(self.store.client.get_logged_model(output.model_id).artifact_location)

    def run(self, run_id: str) -> Path:
        """The folder of a run's own files."""
        return _local(self.store.client.get_run(run_id).info.artifact_uri)

    def promote(self, run_id: str | None, *, is_dry_run: bool = False) -> Promotion:
        return promote(self.store, self.where, BOUNDS, named=run_id, is_dry_run=is_dry_run)

    def champion(self) -> int | None:
        return Registry(self.store, MODEL).model.named("champion")


def _local(address: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(address))


def train(overrides: list[str]) -> str:
    asked = prepare(compose.compose(overrides), overrides)
    return run.execute(asked, MlflowTracker(asked.config.tracking)).run_id


def add_pickle(folder: Path, canary: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (canary,)

    (folder / "data" / "custom_objects.cloudpickle").write_bytes(cloudpickle.dumps(Payload()))


def name_a_loader(folder: Path, canary: Path) -> None:
    description = folder / "MLmodel"
    before = description.read_text()
    values = yaml.safe_load(before)
    values["flavors"]["python_function"] |= {"loader_module": "evil", "code": "code"}
    values.pop("saved_input_example_info")
    text = yaml.safe_dump(values)
    description.write_text(text + "#" * (len(before) - len(text)))  # of the same size
    assert description.stat().st_size == len(before)
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n")


def name_a_loader_alone(folder: Path, canary: Path) -> None:
    name_a_loader(folder, canary)
    shutil.rmtree(folder / "code")


def add_a_lambda(folder: Path, canary: Path) -> None:
    inputs = keras.Input((28, 28), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    touch = keras.layers.Lambda(lambda x, path=str(canary): (open(path, "w"), x)[1], output_shape=(784,))  # noqa: PTH123, SIM115
    outputs = keras.layers.Softmax()(keras.layers.Dense(10)(touch(flat)))
    keras.Model(inputs, outputs).save(folder / "data" / "model.keras")
    canary.unlink(missing_ok=True)


def flip_a_bit(folder: Path, canary: Path) -> None:
    path = folder / "data" / "model.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_requirements(folder: Path, canary: Path) -> None:
    path = folder / "requirements.txt"
    path.write_text(path.read_text().replace("keras", "evilk"))


def remove_the_example(folder: Path, canary: Path) -> None:
    (folder / "input_example.json").unlink()


def bomb_the_description(folder: Path, canary: Path) -> None:
    (folder / "MLmodel").write_text(BOMB)


def forget_the_digests(made: Home, run_id: str) -> None:
    """Leave the list of files as version 0.1 wrote it: sizes, and no tag."""
    path = made.run(run_id) / "environment" / "files.json"
    seals = json.loads(path.read_text())
    sizes = {name: one["size"] for name, one in seals["run"].items()}
    sizes |= {f"model/{name}": one["size"] for name, one in seals["model"].items()}
    path.write_text(json.dumps(sizes))
    made.store.client.delete_tag(run_id, "files.sha256")
