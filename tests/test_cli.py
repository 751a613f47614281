import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NO_MIRRORS, Cli, command
from mlflow import MlflowClient
from mlflow.entities import Run

from mnist_pipeline.cli import COMMANDS


def runs(home: Path, experiment: str = "digits") -> list[Run]:
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], order_by=["start_time ASC"])) if found else []


def test_help_needs_nothing_heavy(fresh_cli: Cli) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        found = fresh_cli(*arguments)
        assert found.returncode == 0
        assert all(name in found.stdout for name in COMMANDS)


def test_every_command_has_help(fresh_cli: Cli) -> None:
    for name in COMMANDS:
        found = fresh_cli(name, "--help")
        assert found.returncode == 0
        assert f"mnist-pipeline {name}" in found.stdout


def test_the_composed_configuration_is_shown(fresh_cli: Cli) -> None:
    found = fresh_cli("train", "--cfg", "job", "model.hidden_width=99")
    assert found.returncode == 0
    assert "hidden_width: 99" in found.stdout
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: trian: no such command; did you mean train?"),
        (["ui", "--host", "203.0.113.9"], "error: --host 203.0.113.9: not an address of this machine"),
        (["ui", "--host", "nowhere.invalid"], "error: --host nowhere.invalid: not an address of this machine"),
        (["xyz"], "error: xyz: no such command; expected train or sweep or studies"),
        (["train", "--bogus"], "error: unrecognized arguments: --bogus"),
        (["train", "--cfg", "job", "--multirun"], "choose one of them"),
        (["train", "--cfg", "job", "model.hiden_width=3"], "did you mean model.hidden_width?"),
        (["train", "model.hidden_width=-5"], "error: model.hidden_width=-5: expected an integer from 1 to 100,000"),
        (["train", "preset=nope"], "error: preset=nope: no such option; expected smoke or tutorial"),
        (["train", "-m", "train.seed=0,-1"], "error: train.seed=-1"),
        (["train", "-m", "train.num_threads=1,2"], "error: train.num_threads: one number for all runs"),
        (["train", "--config-dir", "/nowhere"], "error: --config-dir /nowhere: no such folder"),
        (["train", "--config-name", "other"], "error: --config-name: not for this command"),
        (["train", "tracking.uri=foo://bar"], "error: tracking URI foo://bar: expected sqlite:///PATH"),
        (["train", "-m", "train.seed=range(0,0)"], "error: --multirun: the given values make no run at all"),
        (["-sc"], "error: -sc: expected install=bash"),
        (["-sc", "install=foo"], "error: -sc: expected install=bash"),
        (["ui", "--port", "99999"], "error: --port 99999: cannot be used"),
        (["ui", "--port", "many"], "error: argument --port"),
        (["ui", "tracking.uri=http://127.0.0.1:9"], "http://127.0.0.1:9 is a server"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, fresh_cli: Cli, home: Path, tmp_path: Path
) -> None:
    before = sorted(home.rglob("*"))
    found = fresh_cli(*arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert list((tmp_path / "current").iterdir()) == []
    assert sorted(home.rglob("*")) == before


def test_an_unwritable_home_is_reported(fresh_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = fresh_cli("train", "preset=smoke", MNIST_PIPELINE_HOME=str(tmp_path / "file" / "home"))
    assert found.returncode == 2
    assert "set MNIST_PIPELINE_HOME to" in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_traceback_is_there_for_those_who_ask(fresh_cli: Cli) -> None:
    found = fresh_cli("train", "train.seed=-1", MNIST_PIPELINE_TRACEBACK="1")
    assert found.returncode == 2
    assert "Traceback" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("error: train.seed=-1")


def test_train_from_the_command_to_the_store(fresh_cli: Cli, home: Path, tmp_path: Path) -> None:
    found = fresh_cli("train", "preset=smoke")
    assert found.returncode == 0, found.stderr
    (run,) = runs(home)
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "train"
    assert found.stdout.startswith("The first 8 test predictions")
    assert f"test accuracy       {run.data.metrics['test/accuracy']:.4f}" in found.stdout
    assert run.info.run_id in found.stdout
    assert [line.split()[0] for line in found.stderr.splitlines()] == ["data", "model", "train", "train"]
    assert "epoch 2/2" in found.stderr
    assert "images/s" in found.stderr
    assert list((tmp_path / "current").iterdir()) == []


@pytest.mark.slow
def test_a_terminal_shows_a_bar(home: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(command("train", "preset=smoke"), stdout=follower, stderr=follower) as child:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while chunk := os.read(leader, 65536):
                shown += chunk
    os.close(leader)
    assert child.returncode == 0
    assert "━" in shown.decode()
    assert "0/2" in shown.decode()
    assert "epoch 2/2" in shown.decode()


@pytest.mark.slow
def test_a_home_of_any_name_gets_a_store(fresh_cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "are you sure? #1"
    found = fresh_cli("train", "preset=smoke", "train.num_epochs=1", MNIST_PIPELINE_HOME=str(home))
    assert found.returncode == 0, found.stderr
    assert (home / "mlruns" / "mlflow.db").is_file()
    assert {path.name for path in (home / "mlruns" / "artifacts").iterdir()} == {"digits"}
    assert not list(home.rglob("*.unfinished"))


@pytest.mark.slow
def test_the_fallback_keeps_the_users_own_presets(cli: Cli, home: Path, tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "tiny.yaml").write_text("# @package _global_\nmodel:\n  hidden_width: 3\n")
    found = cli("train", "--config-dir", str(tmp_path), "preset=tiny", "train.num_epochs=1", *NO_MIRRORS)
    assert found.returncode == 0, found.stderr
    assert runs(home)[0].data.params["model.hidden_width"] == "3"


def test_a_closed_pipe_is_not_an_error(home: Path) -> None:
    for arguments in (["--help"], ["train", "--cfg", "job"]):
        with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.close()
            assert child.stderr.read() == ""
        assert child.returncode == 0


def test_a_multirun_is_several_runs(cli: Cli, home: Path, tmp_path: Path) -> None:
    found = cli("train", "-m", "preset=smoke", "train.num_epochs=1", "train.seed=0,1")
    assert found.returncode == 0, found.stderr
    assert [run.data.params["train.seed"] for run in runs(home)] == ["0", "1"]
    assert [line.strip() for line in found.stderr.splitlines() if line.startswith("run ")] == [
        "run 1 of 2  train.seed=0",
        "run 2 of 2  train.seed=1",
    ]
    rows = [re.split(r"  +", line.strip()) for line in found.stdout.splitlines() if "train.seed=" in line]
    assert [row[:3] for row in rows] == [
        ["1", "digits-dense-e1-s0", "train.seed=0"],
        ["2", "digits-dense-e1-s1", "train.seed=1"],
    ]
    assert [float(row[4]) for row in rows] == [round(run.data.metrics["test/accuracy"], 4) for run in runs(home)]
    assert sum(line.startswith("next ") for line in found.stdout.splitlines()) == 1
    assert {run.info.status for run in runs(home)} == {"FINISHED"}
    assert list((tmp_path / "current").iterdir()) == []


def test_one_run_that_fails_does_not_stop_the_others(cli: Cli, home: Path) -> None:
    found = cli("train", "-m", "preset=smoke", "train.num_epochs=1", "train.learning_rate=1e30,0.001")
    assert found.returncode == 1
    assert [run.info.status for run in runs(home)] == ["FAILED", "FINISHED"]
    (line,) = [line for line in found.stderr.splitlines() if "error" in line]
    assert line.startswith("error: the training loss became")
    (row,) = [line for line in found.stdout.splitlines() if "train.learning_rate=1e+30" in line]
    assert row.split() == ["1", "failed", "train.learning_rate=1e+30"]
    assert runs(home)[0].data.tags["reason"].startswith("LossNotFiniteError: the training loss became")


def test_without_mnist_and_without_a_fallback_no_run_is_opened(cli: Cli, home: Path) -> None:
    found = cli("train", "data.fallback=null", *NO_MIRRORS)
    assert found.returncode == 1
    *downloads, error = found.stderr.splitlines()
    assert error.startswith("error: data=mnist is not available (")
    assert all(line.startswith("downloading http://127.0.0.1:9/") for line in downloads)
    assert runs(home, "mnist") == []


def test_without_mnist_the_run_is_on_digits(cli: Cli, home: Path) -> None:
    found = cli("train", "train.num_epochs=1", *NO_MIRRORS)
    assert found.returncode == 0, found.stderr
    assert "warning: FALLBACK: this run uses data=digits instead of data=mnist" in found.stderr
    assert "data                digits" in found.stdout
    (run,) = runs(home)
    assert run.data.params["data.name"] == "digits"
    assert runs(home, "mnist") == []


@pytest.mark.parametrize(
    ("number", "times", "code", "reason"),
    [(signal.SIGINT, 3, 130, "Ctrl-C"), pytest.param(signal.SIGTERM, 1, 143, "SIGTERM", marks=pytest.mark.slow)],
)
def test_a_run_that_is_stopped_is_marked_killed(number: int, times: int, code: int, reason: str, home: Path) -> None:
    arguments = command("train", "preset=smoke", "train.num_epochs=1000000")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "epoch 2/" in line:
                break
        for _ in range(times):  # an impatient user must not leave the run RUNNING for ever
            child.send_signal(number)
            time.sleep(0.005)
        rest = child.stderr.read()
    assert child.returncode == code
    *_, stopped, last = rest.splitlines()
    assert last == ("interrupted" if code == 130 else "terminated")
    assert re.fullmatch(r"stopped   after epoch \d+ of 1000000; the same command resumes", stopped)
    assert "Traceback" not in rest
    (run,) = runs(home)
    assert run.info.status == "KILLED"
    assert run.data.tags["reason"] == reason


@pytest.mark.slow
def test_the_tutorial_on_the_real_mnist(fresh_cli: Cli, home: Path, mnist_dir: Path) -> None:
    found = fresh_cli("train", "preset=tutorial", MNIST_PIPELINE_DATA_DIR=str(mnist_dir))
    assert found.returncode == 0, found.stderr
    (run,) = runs(home, "mnist")
    assert run.data.metrics["test/accuracy"] >= 0.975
    assert run.data.metrics["test/loss"] < 0.085
    assert run.data.params["data.validation_size"] == "0"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_the_ui_starts_over_the_store_and_ends_in_order(number: signal.Signals, code: int, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with started_ui("--port", str(port)) as child:
        assert child.stdout is not None
        assert (
            child.stdout.readline()
            == f"MLflow UI: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)\n"
        )
        assert b"<title>MLflow</title>" in read_page(f"http://127.0.0.1:{port}/")  # it is there when it says so
        require_no_other_site(f"http://127.0.0.1:{port}")
        child.send_signal(number)
        _, errors = child.communicate(timeout=15)
        assert child.returncode == code
        assert errors.strip() == ("" if number == signal.SIGINT else "terminated")


def require_no_other_site(address: str) -> None:
    client = MlflowClient(address)
    known = [found.name for found in client.search_experiments()]
    for path, body in (("/", None), ("/api/2.0/mlflow/experiments/create", b'{"name": "theirs"}')):
        for header in ("Host: evil.example", "Host: 192.168.0.1:5000", "Origin: http://evil.example", "Origin: null"):
            name, _, value = header.partition(": ")
            asked = urllib.request.Request(address + path, body, {name: value, "Content-Type": "application/json"})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=15)
            assert refused.value.code == 403
            refused.value.close()
    assert [found.name for found in client.search_experiments()] == known


def test_the_ui_takes_another_port_where_its_own_is_taken(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # or something else listens there already
            stack.enter_context(socket.create_server(("127.0.0.1", 5000)))
        child = stack.enter_context(started_ui())
        assert child.stdout is not None
        address = child.stdout.readline().split()[2]
        assert address.startswith("http://127.0.0.1:")
        assert not address.startswith("http://127.0.0.1:5000/")
        assert b"<title>MLflow</title>" in read_page(address.partition("#")[0])
        child.send_signal(signal.SIGINT)
        assert "port 5000 is taken: another one is used" in child.communicate(timeout=15)[1]


IN_A_NETWORK_OF_ITS_OWN = """
import fcntl, json, socket, struct, subprocess, sys, urllib.request
with socket.socket() as up:
    fcntl.ioctl(up, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS: the loopback of a new network is down
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
try:
    address = child.stdout.readline().split()[2].partition("#")[0]
    port = address.rstrip("/").rpartition(":")[2]
    for host in ("127.0.0.2", socket.gethostname()):
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/create",
            json.dumps({"name": f"of {host}"}).encode(),
            {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}", "Content-Type": "application/json"},
        )
        assert urllib.request.urlopen(asked, timeout=30).status == 200
finally:
    child.terminate()
    child.wait()
print(address)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_the_ui_listens_where_it_is_told_and_warns(home: Path) -> None:
    words = command("ui", "--host", "0.0.0.0", "--port", "0")
    found = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert found.stdout.startswith(f"http://{socket.gethostname()}:")
    (warning, *_) = found.stderr.splitlines()
    assert re.fullmatch(r"warning: whoever reaches port \d+ of this machine can read and write this store.*", warning)
    known = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").search_experiments()
    assert {f"of {socket.gethostname()}", "of 127.0.0.2"} <= {experiment.name for experiment in known}


@contextlib.contextmanager
def started_ui(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    words = command("ui", *arguments)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()  # where the test failed before it ended it


def read_page(address: str) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as page:
                return bytes(page.read())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
