import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forked import run_command

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.system.environment import prepare_libraries
from mnist_pipeline.tracking import store

pytest_plugins = ["postgresql", "ray_cluster", "registry_home", "sweep_home"]

prepare_libraries()
os.environ.pop("MAKELEVEL", None)  # under make, messages would propose make's commands


ROOT = Path(__file__).parents[1]
DEAD_ADDRESS = "http://127.0.0.1:9"  # the discard port: nothing listens there
NO_MIRRORS = [f"data.npz_url={DEAD_ADDRESS}/mnist.npz", f"data.idx_url={DEAD_ADDRESS}", "data.num_retries=0"]

Cli = Callable[..., subprocess.CompletedProcess[str]]

QUICK = {
    *("arrays", "bad_data", "checkpoint", "compare", "data", "evaluate", "figures", "files", "handwriting", "hints"),
    *("library_internals", "mnist", "pictures", "plain_yaml", "published", "registry_comparison", "registry_gates"),
    *("sweep_confirm", "sweep_space", "sweep_study", "training_options"),
}
"""The files of tests that start no process: `make test-quick` runs them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in these files."""
    for item in items:
        if item.path.stem.removeprefix("test_") in QUICK:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without runs. To create one takes seconds, to copy it nothing."""
    database = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    store.create(f"sqlite:///{database}")
    return database


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A home of its own for each test, with an empty store, and no data anywhere."""
    folder = tmp_path / "my home"  # with a blank, as people have it
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(folder))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("MNIST_PIPELINE_DATA_DIR", "MLFLOW_TRACKING_URI", "MNIST_PIPELINE_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def cli(home: Path, tmp_path: Path) -> Cli:
    """Runs the command in a child process that has the libraries already, in a current folder of its own."""
    folder = tmp_path / "current"
    folder.mkdir()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, cwd=folder, env={**os.environ, **environment})

    return run


@pytest.fixture
def fresh_cli(home: Path, tmp_path: Path) -> Cli:
    """Runs the command as the shell does, in a current folder of its own."""
    folder = tmp_path / "current"
    folder.mkdir()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@contextlib.contextmanager
def server(database: Path, artifacts: Path, *, port: int | None = None) -> Iterator[str]:
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
    child = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
            "--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes that no test needs
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(900):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            assert child.poll() is None, "the server ended"
            time.sleep(0.1)
        else:
            raise AssertionError("the server does not answer")
        yield address
    finally:
        child.terminate()
        child.wait(30)


def digits_config() -> DataConfig:
    return compose.compose(["data=digits"]).data


def digits_arrays() -> dict[str, np.ndarray]:
    """Return the digits in the layout of Keras's data sets."""
    from mnist_pipeline.data import digits

    found = digits.load()
    assert isinstance(found.images, dict)
    assert isinstance(found.labels, dict)
    return {
        f"{letter}_{split}": arrays[split]
        for letter, arrays in (("x", found.images), ("y", found.labels))
        for split in ("train", "test")
    }


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "mnist-pipeline"), *arguments]


@pytest.fixture
def mnist_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of the real MNIST."""
    folder = REAL_DATA_DIR
    if folder is None or not folder.is_dir():
        pytest.skip("the real MNIST is not here: set MNIST_PIPELINE_DATA_DIR to the folder that holds it")
    return folder


_named = os.environ.get("MNIST_PIPELINE_DATA_DIR")
REAL_DATA_DIR = Path(_named).absolute() if _named else None


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test writes into the home of whoever runs them."""
    os.environ["MNIST_PIPELINE_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """TensorFlow takes its number of threads once a process, before it starts."""
    from mnist_pipeline.train.runtime import start_tensorflow

    start_tensorflow(1)


@pytest.fixture(scope="session")
def champion_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with a champion of digits-classifier, for tests that only use it."""
    from mnist_pipeline.config import compose
    from mnist_pipeline.pipeline import run
    from mnist_pipeline.pipeline.request import prepare
    from mnist_pipeline.registry import promote, settings
    from mnist_pipeline.tracking.mlflow_store import MlflowStore
    from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker

    folder = tmp_path_factory.mktemp("champion home")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    overrides = ["data=digits", f"tracking.uri={store.sqlite_uri(folder / 'mlruns' / 'mlflow.db')}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PIPELINE_HOME", str(folder))
        asked = prepare(compose.compose([*overrides, "model.hidden_width=64"]), overrides)
        run.execute(asked, MlflowTracker(asked.config.tracking))
        where, bounds = settings.read_promote(overrides)
        promote.promote(MlflowStore(where.tracking), where, bounds, named=None, is_dry_run=False)
    return folder


@pytest.fixture(scope="session")
def reports_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with runs to look at, which every process that runs tests shares; nothing in it is to be deleted."""
    import reports_home

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return reports_home.make(shared / "reports home", empty_store)
