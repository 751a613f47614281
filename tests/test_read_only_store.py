"""A store that can only be read, as a volume mounted so: what only reads works."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import command, digits_arrays

SCRIPT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture(scope="module")
def read_only(champion_home: Path) -> Path:
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("to mount a folder takes root and Linux's unshare")
    return champion_home


def isolate(home: Path, *words: str) -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, str(home), *command(*words)]


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
    return subprocess.run(
        isolate(home, *words), env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@contextlib.contextmanager
def started(home: Path, *words: str) -> Iterator[str]:
    """Start a server, and yield the address that it prints."""
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
    with subprocess.Popen(isolate(home, *words), env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)


def fetch(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        content: bytes = response.read()
    return content


READING = (
    ["diff", "champion", "champion", "--output", "page.html"],
    ["compare"],
    ["history"],
    ["report", "champion", "--output", "page.html"],
    ["predict", "x.npz"],
)


@pytest.mark.parametrize("words", [READING[0], *(pytest.param(one, marks=pytest.mark.slow) for one in READING[1:])])
def test_what_only_reads_works(
    words: list[str], read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=digits_arrays()["x_test"][:3])
    done = run(read_only, *words, "data=digits")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert Path("page.html").exists() == ("--output" in words)


@pytest.mark.slow
def test_the_servers_answer(read_only: Path) -> None:
    with started(read_only, "ui", "--port", "0") as address:
        query = b'{"experiment_ids": ["1"], "max_results": 5}'
        found = json.loads(fetch(f"{address}/ajax-api/2.0/mlflow/runs/search", query))
        assert len(found["runs"]) == 1
        assert b"<title>MLflow</title>" in fetch(address)
    with started(read_only, "serve", "data=digits", "--port", "0") as address:
        images = digits_arrays()["x_test"][:2].tolist()
        assert len(json.loads(fetch(f"{address}/invocations", json.dumps({"instances": images}).encode()))) == 1


@pytest.mark.parametrize("words", [["train"], ["promote"], ["rollback", "--reason", "x"], ["report", "champion"]])
def test_what_writes_says_so_before_it_starts(words: list[str], read_only: Path) -> None:
    done = run(read_only, *words, "data=digits")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1
