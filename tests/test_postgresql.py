"""PostgreSQL as the tracking store and as the storage of a study."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import psycopg
import pytest
from conftest import Cli
from mlflow import MlflowClient

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = pytest.mark.skipif(not BINARIES, reason="PostgreSQL is not installed")


def command(*words: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
    return [*as_user, *words]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty PostgreSQL server, without a database name."""
    folder = Path(f"/tmp/pg-{os.getpid()}")  # short, since the path of a socket has at most 100 bytes
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    initialise = [str(BINARIES[-1] / "initdb"), "-D", f"{folder}/data", "-U", "me", "--auth=trust", "--no-sync"]
    subprocess.run(command(*initialise), check=True, capture_output=True, cwd="/")
    settings = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off"]
    options = [word for setting in settings for word in ("-c", setting)]
    child = subprocess.Popen(
        command(str(BINARIES[-1] / "postgres"), "-D", f"{folder}/data", *options),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    url = f"postgresql://me@127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                psycopg.connect(f"{url}/postgres").close()
                break
            except psycopg.OperationalError:
                assert child.poll() is None, "the server ended"
                time.sleep(0.1)
        yield url
    finally:
        child.send_signal(signal.SIGINT)  # do not wait for clients
        child.wait(30)
        shutil.rmtree(folder)


def create_database(server: str, name: str) -> str:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.mark.slow
def test_artifacts_are_kept_in_the_home(server: str, cli: Cli, home: Path, tmp_path: Path) -> None:
    url = create_database(server, "tracking")
    found = cli("train", "preset=smoke", "train.num_epochs=1", f"tracking.uri={url}")
    assert found.returncode == 0, found.stderr
    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    folder = Path(unquote(urlparse(run.info.artifact_uri).path))
    assert folder.is_relative_to(home / "mlruns" / "artifacts")
    assert (folder / "evaluate" / "predictions.parquet").is_file()
    assert list((tmp_path / "current").iterdir()) == []
    shown = cli("report", run.info.run_id, "data=digits", f"tracking.uri={url}")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.slow
def test_a_study_is_kept_in_it(server: str, cli: Cli, home: Path) -> None:
    url = create_database(server, "studies")
    arguments = ("sweep", "preset=smoke", "sweep.num_trials=2", "sweep.confirm=null", f"sweep.storage={url}")
    first = cli(*arguments)
    assert first.returncode == 0, first.stderr
    again = cli(*arguments)
    assert "trials: 2 of 2 are done" in again.stderr
