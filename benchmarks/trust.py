"""What can be trusted: runs are reproduced, nothing is lost on the way to a server, no surroundings matter."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import PIPELINE, ROOT, Row, python, run

NUM_OUTAGE_RUNS = 20
_SWEEP = [
    "sweep.num_trials=4",
    "sweep.space.train.num_epochs.high=4",
    "sweep.confirm.num_seeds=2",
    "sweep.confirm.max_seeds=2",
]
_SHORT = ["train", "data=digits", "train.num_epochs=2", "force=true"]
_SETTINGS: tuple[dict[str, str], ...] = (
    {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    {"MATPLOTLIBRC": "{folder}/matplotlibrc"},
    {"KERAS_BACKEND": "torch"},
    {"KERAS_HOME": "{folder}"},
    {"TF_USE_LEGACY_KERAS": "1"},
    {"MLFLOW_REGISTRY_URI": "sqlite:///{folder}/other.db"},
    {"MLFLOW_ACTIVE_MODEL_ID": "m-nope"},
    {"MLFLOW_RUN_ID": "x"},
    {"MLFLOW_EXPERIMENT_NAME": "other"},
    {"GIT_DIR": "{folder}/.git"},
    {"PYTHONIOENCODING": "ascii"},
    {"LANG": "C", "LC_ALL": "C"},
    {"TZ": "Pacific/Auckland"},
    {"COLUMNS": "20"},
    {"OMP_NUM_THREADS": "7"},
    {"PYTHONHASHSEED": "17"},
    {"HOME": "/nonexistent"},
)


def measure_reproduction() -> Iterator[Row]:
    """Reproduce the baseline on MNIST, and every training of a small sweep with its confirmation."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run([*PIPELINE, "train"], home=home)
        run([*PIPELINE, "sweep", *_SWEEP], home=home)
        ids = run(python("-c", _LIST), home=home).output.split()
        ended = [run([*PIPELINE, "reproduce", one], ok=(0, 1), home=home).output for one in ids]
    num_same = sum("every bit of the result is the same" in output for output in ended)
    yield Row(
        "runs trained again by `reproduce`: the baseline on MNIST, a sweep's trials, confirmations and winner",
        f"{num_same} of {len(ids)} identical",
        "all",
    )


_LIST = """
from mlflow import MlflowClient
from mnist_pipeline.system import paths
client = MlflowClient(f"sqlite:///{paths.mlruns_dir()}/mlflow.db")
for run in client.search_runs(["1"], "tags.kind != 'sweep'"):
    print(run.info.run_id)
"""


def measure_outages() -> Iterator[Row]:
    """Lose writes at random on the way to a real server, or their answers, and compare what the server has."""
    with tempfile.TemporaryDirectory() as folder, _serve(Path(folder)) as address:
        found = run(python("-m", "benchmarks.lossy_runs", address, str(NUM_OUTAGE_RUNS)), home=Path(folder))
    num_lost, num_different = map(int, found.output.split()[-2:])
    yield Row(
        f"writes, or their answers, lost at random on the way to an MLflow server, in {NUM_OUTAGE_RUNS} runs",
        f"{num_lost} lost; {num_different} runs lack or double anything on the server",
        "0",
    )


@contextlib.contextmanager
def _serve(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(command, env=environment, stdout=-3, stderr=-3) as server:
        address = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.2)
        yield address
        server.terminate()


def measure_surroundings() -> Iterator[Row]:
    """Train under each of the settings that other programs leave behind, and compare the result."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "matplotlibrc").write_text("text.usetex: True\nfont.size: 50\n")
        (Path(folder) / "keras.json").write_text('{"backend": "torch", "floatx": "float64"}')
        subprocess.run(["git", "init", "-q", folder], check=True)
        digests = [
            _train_under({key: value.format(folder=folder) for key, value in settings.items()})
            for settings in ({}, *_SETTINGS)
        ]
    num_different = sum(digest != digests[0] for digest in digests)
    yield Row(
        "settings of others, each alone: matplotlib, Keras, MLflow, git, the terminal, threads, home and time zone",
        f"{len(_SETTINGS)} tried, {num_different} change a bit or break a run",
        "0",
    )


def _train_under(settings: dict[str, str]) -> str | None:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "MNIST_PIPELINE_HOME": home, **settings}
        done = subprocess.run(
            [*PIPELINE, *_SHORT], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
    found = re.findall(r"^result digest +(\w+)$", done.stdout, re.MULTILINE)
    return found[0] if found else None
