"""Pictures in colour, of classes with names: from the folder to the champion that is served."""

import html
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import own_data
import pytest
from conftest import command
from forked import run_command

KILL_AT = str(Path(__file__).with_name("kill_at.py"))
TRAIN = ["data.image_size=[16,16]", "train.num_epochs=12", "model.hidden_width=32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_data.write_shapes(tmp_path_factory.mktemp("pictures") / "shapes")


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a command; MLflow sets its variable in whoever uses it, such as other tests."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, "MNIST_PIPELINE_HOME": str(home)}


def call(home: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_command(*words, env=environment(home))
    assert done.returncode == code, done.stderr
    return done


def make_home(tmp_path: Path, empty_store: Path) -> Path:
    (tmp_path / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Path, list[str]]:
    """A home with two runs, the first of which is the champion, and their result digests."""
    home = make_home(tmp_path_factory.mktemp("colour") / "home", empty_store)
    digests = []
    for seed in (0, 1):
        done = call(home, "train", "data=folder", f"data.path={folder}", *TRAIN, f"train.seed={seed}")
        digests += re.findall(r"^result digest +(\w+)$", done.stdout, re.MULTILINE)
    call(home, "promote", "data.name=shapes", "shapes-dense-w32-e12-s0", "promote.min_test_accuracy=0.4")
    return home, digests


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    folder: Path, trained: tuple[Path, list[str]], tmp_path: Path, empty_store: Path
) -> None:
    home = make_home(tmp_path / "home", empty_store)
    words = ["train", "data=folder", f"data.path={folder}", *TRAIN]
    moment = "call mnist_pipeline.tracking.mlflow_tracker MlflowRun.log_metrics 5 after"
    killed = subprocess.Popen([sys.executable, KILL_AT, moment, *words], env=environment(home), start_new_session=True)
    killed.wait(120)
    assert killed.returncode == -signal.SIGKILL
    done = call(home, *words)
    assert "resume    after epoch" in done.stderr
    assert trained[1][0] in done.stdout


@pytest.mark.slow
def test_diff_and_report_name_the_classes(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    home, _ = trained
    page = tmp_path / "report.html"
    call(home, "report", "data.name=shapes", "champion", "--output", str(page))
    text = page.read_text()
    assert "trïangle" in text
    assert "square, filled" in text
    assert "data=folder" in text
    assert "data.image_size" in text  # in the command that reproduces it
    call(home, "diff", "data.name=shapes", "shapes-dense-w32-e12-s0", "shapes-dense-w32-e12-s1")


@pytest.mark.slow
def test_the_command_in_the_report_is_the_same_run(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    home, _ = trained
    page = tmp_path / "report.html"
    call(home, "report", "data.name=shapes", "champion", "--output", str(page))
    (line,) = re.findall(r"mnist-pipeline train ([^<]*)", html.unescape(page.read_text()))
    done = call(home, "train", *shlex.split(line))
    assert "the same fingerprint" in done.stderr


@pytest.mark.slow
def test_a_sweep_finds_and_confirms(folder: Path, tmp_path: Path, empty_store: Path) -> None:
    home = make_home(tmp_path / "home", empty_store)
    done = call(home, "sweep", "preset=smoke", "data=folder", f"data.path={folder}", TRAIN[0], "sweep.num_trials=4")
    assert re.search(r"^winner +\S", done.stdout, re.MULTILINE)


def test_pictures_of_any_size_are_classified(folder: Path, trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    home, _ = trained
    table = tmp_path / "table.json"
    call(home, "predict", "data.name=shapes", str(folder / "trïangle"), "--output", str(table))
    rows = json.loads(table.read_text())
    assert len(rows) == 60
    assert np.mean([row["predicted"] == "trïangle" for row in rows]) > 0.6
    assert set(own_data.SHAPES) <= {key.removeprefix("probability_") for key in rows[0]}


@pytest.fixture(scope="module")
def server(trained: tuple[Path, list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The port of a server of the champion, and the commands that it shows."""
    with subprocess.Popen(
        command("serve", "data.name=shapes", "--port", "0"),
        env=environment(trained[0]),
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(3)]
        yield int(re.findall(r":(\d+)/", lines[0])[0]), lines[1:]
        child.terminate()


def post(port: int, content: bytes, kind: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/predict", content, {"Content-Type": kind})
    try:
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def form(files: dict[str, bytes]) -> tuple[bytes, str]:
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="p"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in files.items()
    ]
    return b"".join([*parts, b"--edge--\r\n"]), "multipart/form-data; boundary=edge"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.slow
def test_the_shown_commands_work(server: tuple[int, list[str]]) -> None:
    _, lines = server
    arrays, pictures = (
        json.loads(subprocess.run(["sh", "-c", line], capture_output=True, check=True, timeout=30).stdout)
        for line in lines
    )
    (one,) = pictures["predictions"]
    assert one["class"] in own_data.SHAPES
    np.testing.assert_allclose(list(one["probabilities"].values()), arrays["predictions"][0], atol=1e-6)


def test_one_picture_or_several_are_answered_by_name(folder: Path, server: tuple[int, list[str]]) -> None:
    port, _ = server
    files = {f"{name[0]}.png": (folder / name / "000.png").read_bytes() for name in own_data.SHAPES}
    status, answer = post(port, *form(files))
    assert status == 200
    predictions = answer["predictions"]
    assert isinstance(predictions, list)
    assert [one["picture"] for one in predictions] == list(files)
    status, single = post(port, files["c.png"], "image/png")
    assert status == 200
    assert isinstance(single["predictions"], list)
    alone = single["predictions"][0]
    assert alone["probabilities"] == pytest.approx(predictions[0]["probabilities"], abs=1e-6)
    assert sum(alone["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "image/png", 400),
        (b"not a picture", "image/png", 400),
        (b"{}", "application/json", 415),
        (b"x", "", 415),
        (b"no form at all", "multipart/form-data; boundary=edge", 400),
        (b"x", "multipart/form-data", 400),
        (form({})[0], form({})[1], 400),
        (*form({"a.png": b"bad"}), 400),
        (*form({f"{number}.png": b"" for number in range(300)}), 400),
        (bytes(9_000_000), "image/png", 413),
    ],
    ids=["empty", "no picture", "JSON", "no type", "no form", "no boundary", "no files", "bad", "many", "large"],
)
def test_a_malformed_request_is_refused(content: bytes, kind: str, status: int, server: tuple[int, list[str]]) -> None:
    found, answer = post(server[0], content, kind)
    assert (found, answer["error_code"]) == (status, "BAD_REQUEST")
    assert answer["message"]
