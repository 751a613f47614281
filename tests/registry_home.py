"""Three runs on digits, and what the tests of the registry do with them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import digits_config, server
from mlflow import MlflowClient

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.registry.ledger import Outcome
from mnist_pipeline.registry.promote import Promotion, promote
from mnist_pipeline.registry.settings import PromoteConfig, RegistryConfig
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker

MODEL = "digits-classifier"
WEAK = ["data=digits", "model.hidden_width=8", "train.num_epochs=2", "force=true"]
BETTER = ["data=digits", "model.hidden_width=64", "train.num_epochs=8"]
BOUNDS = PromoteConfig(alpha=0.05, min_test_accuracy=0.1, max_model_bytes=10_000_000, max_recall_drop=0.5)
GATES = ["promote.min_test_accuracy=0.1", "promote.max_recall_drop=0.5"]


@dataclass(frozen=True)
class Trained:
    database: Path
    weak: str
    equal: str
    better: str


def train(overrides: list[str]) -> str:
    asked = prepare(compose.compose(overrides), overrides)
    return run.execute(asked, MlflowTracker(asked.config.tracking)).run_id


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Trained:
    """Three runs on digits: a weak one, its equal, a better one. Each test works on a copy of their store."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for whoever comes after
        weak, equal, better = train(WEAK), train(WEAK), train(BETTER)
    return Trained(folder / "mlruns" / "mlflow.db", weak, equal, better)


@pytest.fixture
def database(home: Path, trained: Trained) -> Path:
    (home / "mlruns" / "artifacts").symlink_to(trained.database.parent / "artifacts")
    return Path(shutil.copy(trained.database, home / "mlruns" / "mlflow.db"))


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest, database: Path, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield store.sqlite_uri(database)
        return
    with server(database, tmp_path / "server_artifacts") as address:
        yield address


@pytest.fixture
def local(database: Path) -> str:
    return store.sqlite_uri(database)


def open_store(uri: str) -> MlflowStore:
    return MlflowStore(TrackingConfig(uri=Address(uri), experiment="digits"))


def where(uri: str, *, wait: bool = False) -> RegistryConfig:
    return RegistryConfig(digits_config(), TrackingConfig(uri=Address(uri), experiment="digits"), wait)


def call(uri: str, run: str | None, bounds: PromoteConfig = BOUNDS, *, is_dry_run: bool = False) -> Promotion:
    return promote(open_store(uri), where(uri), bounds, named=run, is_dry_run=is_dry_run)


def aliases(uri: str) -> dict[str, int]:
    named = MlflowClient(uri).get_registered_model(MODEL).aliases
    return {alias: int(version) for alias, version in named.items()}


def champion(uri: str) -> int | None:
    return aliases(uri).get("champion")


def outcome(result: Promotion) -> Outcome | None:
    return result.decision.outcome if result.decision else None


def verdicts(result: Promotion) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in result.gates}
