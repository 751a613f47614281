"""docs/clusters.md, followed word by word on two hosts: its services, its commands, and a host that is cut off."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import postgresql
import pytest
import ray_cluster
import yaml
from conftest import ROOT
from mlflow import MlflowClient
from optuna.trial import TrialState
from ray_cluster import HEAD_IP, NODE_IP, Hosts

PAGE = (ROOT / "docs" / "clusters.md").read_text()
DEPLOY = ROOT / "deploy"
HEAD = "head.example.org"
BIN = Path(sys.executable).parent


def blocks(host: str) -> list[str]:
    """The commands that the page has for a host."""
    found = re.findall(r"^<!-- on: (.*?) -->\n```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line for hosts, block in found if host in hosts.split() for line in block.splitlines()]


def read_unit(name: str) -> tuple[list[str], str]:
    """The command of a unit, and the name of the file with its environment."""
    unit = (DEPLOY / name).read_text()
    command, environment = (
        re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)[0] for key in ("ExecStart", "EnvironmentFile")
    )
    assert "Restart=always" in unit
    return shlex.split(command), Path(environment).name


def test_what_the_page_copies_is_there_and_each_unit_runs_what_we_have() -> None:
    for line in (*blocks("head"), *blocks("node")):
        for copied in re.findall(r"deploy/\S+", line):
            assert (ROOT / copied).is_file(), line
    for unit in DEPLOY.glob("*.service"):
        words, environment = read_unit(unit.name)
        assert (BIN / Path(words[0]).name).is_file()
        assert (DEPLOY / environment).is_file()
        assert f"systemctl enable --now {unit.stem}" in PAGE


def test_the_compose_file_runs_what_the_units_run() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, unit in (("mlflow", "mlflow"), ("ray-head", "ray-head"), ("ray-node", "ray-node")):
        words, _ = read_unit(f"{unit}.service")
        there = [word for word in services[name]["command"].split() if "=" not in word and ":" not in word]
        assert there == [Path(words[0]).name, *(word for word in words[1:] if "=" not in word and ":" not in word)]


class Team:
    """The two hosts of the page, with its services on them."""

    def __init__(self, hosts: Hosts, folder: Path, stack: contextlib.ExitStack) -> None:
        self.hosts = hosts
        self.folder = folder
        self._stack = stack
        self._is_over = threading.Event()

    def place(self, text: str) -> str:
        """The paths of the page, here."""
        for there, here in (
            ("/opt/mnist-pipeline/.venv/bin", str(BIN)),
            ("/etc/mnist-pipeline", str(self.folder / "etc")),
            ("/var/lib", str(self.folder / "lib")),
        ):
            text = text.replace(there, here)
        return text

    def set_up(self, server: postgresql.PostgreSQL) -> None:
        """Carry out the page's commands for PostgreSQL, and edit the files as it says."""
        for line in blocks("head"):
            if "psql" in line:
                for statement in re.findall(r'-c "(.*?)"', line):
                    server.execute(statement)
        etc = self.folder / "etc"
        etc.mkdir()
        for file in ("mlflow.env", "mlflow-auth.ini", "ray.env"):
            assert f"deploy/{file}" in " ".join(blocks("head"))
            content = self.place((DEPLOY / file).read_text()).replace("replace-me-by-a-long-one", "a-long-password")
            (etc / file).write_text(content.replace("replace-me", "secret-of-the-server"))
        (etc / "pgpass").write_text("127.0.0.1:5432:tracking:mnist:choose-your-own\n")
        (etc / "pgpass").chmod(0o600)
        (etc / "ray-token").write_text(self.hosts.token)
        (self.folder / "lib" / "mlflow").mkdir(parents=True)
        (self.folder / "lib" / "ray").mkdir()

    def enable(self, unit: str, *, host: str, more: tuple[str, ...] = ()) -> None:
        """Do what systemd does with a unit: start its command again whenever it ends."""
        words, name = read_unit(f"{unit}.service")
        lines = (self.folder / "etc" / name).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        env = {**os.environ, "HOME": str(self.folder / "lib"), **given}
        command = self.hosts.inside(host, *(self.place(word) for word in words), *more)
        state = self.folder / "lib" / ("mlflow" if unit == "mlflow" else "ray")

        def supervise() -> None:
            while not self._is_over.is_set():
                with (self.folder / f"{unit}.log").open("ab") as log:
                    child = subprocess.Popen(
                        command, env=env, cwd=state, stdout=log, stderr=log, start_new_session=True
                    )
                    while child.poll() is None and not self._is_over.wait(0.2):
                        pass
                for pid in {child.pid, *ray_cluster.members(child.pid)}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
                child.wait()
                self._is_over.wait(2)

        (self.folder / f"{unit}.log").touch()
        thread = threading.Thread(target=supervise)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._is_over.set)

    def wait_for_log(self, unit: str, text: str, *, times: int = 1) -> None:
        until = time.monotonic() + 150
        while (said := (self.folder / f"{unit}.log").read_text(errors="replace")).count(text) < times:
            assert time.monotonic() < until, said[-3000:]
            time.sleep(0.2)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    if os.getuid() != 0 or not postgresql.BINARIES:
        pytest.skip("needs root, for network namespaces, and PostgreSQL")
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(ray_cluster.running())
        for name in hosts.names.values():
            folder = Path("/etc/netns") / name
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{HEAD_IP} {HEAD}\n{NODE_IP} node.example.org\n")
        yield Team(hosts, hosts.folder, stack)


@pytest.mark.slow
def test_a_sweep_as_the_page_has_it_with_a_host_that_is_cut_off(team: Team, home: Path, mnist_dir: Path) -> None:
    hosts = team.hosts
    with postgresql.running(within=hosts.inside("head"), port=5432, listens_on="*", password_of="mnist") as server:
        team.set_up(server)
        team.enable("mlflow", host="head")
        own = (f"--temp-dir={team.folder}/head", "--num-cpus=1", f"--node-ip-address={HEAD_IP}")
        team.enable("ray-head", host="head", more=own)
        team.wait_for_log("ray-head", "Ray runtime started")
        own = (f"--temp-dir={team.folder}/node", "--num-cpus=1", f"--node-ip-address={NODE_IP}")
        team.enable("ray-node", host="node", more=own)
        team.wait_for_log("ray-node", "Ray runtime started")
        team.wait_for_log("mlflow", "Application startup complete")

        people = team.folder / "people"
        people.mkdir()
        (people / ".pgpass").write_text(f"{HEAD}:5432:studies:mnist:choose-your-own\n")
        (people / ".pgpass").chmod(0o600)
        (people / ".ray").mkdir()
        shutil.copy(team.folder / "etc" / "ray-token", people / ".ray" / "auth_token")
        server_settings = dict(re.findall(r"(MLFLOW_TRACKING_\w+)=(\S+)", PAGE))
        assert server_settings["MLFLOW_TRACKING_URI"] == f"http://{HEAD}:5000"
        login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a-long-password"}
        env = {
            **os.environ, **server_settings, **login, "HOME": str(people), "MNIST_PIPELINE_HOME": str(home),
            "MNIST_PIPELINE_DATA_DIR": str(mnist_dir), "PATH": f"{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        (words,) = [shlex.split(line) for line in blocks("head") if line.startswith("mnist-pipeline sweep")]
        small = [
            "sweep.num_trials=10",
            "sweep.confirm.num_seeds=2",
            "sweep.confirm.max_seeds=2",
            "sweep.confirm.top_k=1",
            "sweep.study=team",
        ]
        log = home / "sweep.log"
        with log.open("wb") as said:
            child = subprocess.Popen(
                hosts.inside("head", *words, *small, "executor.silence_sec=10"), env=env, stdout=said, stderr=said
            )
        try:
            _wait_for(log, "trial 1 ", child)
            hosts.cut()
            _wait_for(log, "trial 4 ", child)
            hosts.mend()
            assert child.wait(400) == 0, log.read_text()
        finally:
            child.kill()
        assert "cluster   " in log.read_text()
        _require_whole(server)
        answers = {
            login: _fetch(hosts, f"{login}{HEAD}:5000/") for login in ("http://admin:a-long-password@", "http://")
        }
        assert answers == {"http://admin:a-long-password@": "200", "http://": "401"}
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert "choose-your-own" not in listed


def _wait_for(log: Path, text: str, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 200
    while not re.search(rf"^{text}.*(done|pruned)", log.read_text(), re.MULTILINE):
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def _require_whole(server: postgresql.PostgreSQL) -> None:
    """Each trial and each confirmation has one run, which is finished, with each of its epochs once."""
    study = optuna.load_study(study_name="team", storage=server.through_socket("studies"))
    states = {trial.number: trial.state for trial in study.trials}
    assert set(states.values()) <= {TrialState.COMPLETE, TrialState.PRUNED}
    client = MlflowClient(server.through_socket("tracking"))
    runs = client.search_runs([client.get_experiment_by_name("mnist").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert sorted(int(run.data.tags["trial.number"]) for run in trials) == sorted(states)
    assert len([run for run in runs if run.data.tags["kind"] == "confirm"]) == 4
    for run in (run for run in runs if run.data.tags["kind"] in ("trial", "confirm")):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "validation/accuracy")]
        assert steps == list(range(1, len(steps) + 1))


def _fetch(hosts: Hosts, address: str) -> str:
    words = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", address]
    return subprocess.run(hosts.inside("head", *words), capture_output=True, text=True, check=True).stdout
