"""Sweeps on a Ray cluster of two hosts end as those of one machine, whoever dies."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray_cluster
from conftest import ROOT, command
from forked import run_command
from ray_cluster import ADDRESS, Hosts
from sweep_home import ALONE, Trials, outcome, read_study, require_whole, sweep_here
from test_multirun import digests

ON_RAY = ("executor=ray", f"executor.address={ADDRESS}")
Finished = subprocess.CompletedProcess[str]


class Driver:
    """A sweep in a process on the head, with what it has written to stderr so far."""

    def __init__(self, hosts: Hosts, home: Path, *overrides: str, **environment: str) -> None:
        self._log = home / f"driver-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                hosts.inside("head", *command("sweep", *ALONE, *ON_RAY, *overrides)),
                env=hosts.environment(MNIST_PIPELINE_HOME=str(home), **environment),
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the command: `ip netns exec` has become it."""
        return self._child.pid

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 100
        while text not in self.said:
            assert self._child.poll() is None, self.said
            assert time.monotonic() < until, self.said
            time.sleep(0.05)

    def finish(self) -> int:
        return self._child.wait(100)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait(10)


Drive = Callable[..., Driver]


@pytest.fixture
def drive(ray_hosts: Hosts, home: Path) -> Iterator[Drive]:
    """Starts drivers, which do not outlive the test."""
    drivers: list[Driver] = []

    def start(*overrides: str, within: Path = home, **environment: str) -> Driver:
        drivers.append(Driver(ray_hosts, within, *overrides, **environment))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()


@pytest.fixture
def on_head(ray_hosts: Hosts, home: Path) -> Callable[..., Finished]:
    """Runs a command to its end, on the head."""

    def run(*words: str, **environment: str) -> Finished:
        env = ray_hosts.environment(MNIST_PIPELINE_HOME=str(home), **environment)
        return run_command(*words, env=env, cwd=home, within=tuple(ray_hosts.inside("head")))

    return run


def sweep(on_head: Callable[..., Finished], *overrides: str, **environment: str) -> Finished:
    return on_head("sweep", *ALONE, *ON_RAY, *overrides, **environment)


def workers(hosts: Hosts) -> list[int]:
    return hosts.pids("node", "ray::Trainer")


def test_a_worker_that_is_killed_is_replaced_and_the_bits_are_those_of_one_machine(
    ray_hosts: Hosts, drive: Drive, home: Path, uninterrupted_sweep: Trials
) -> None:
    driver = drive()
    driver.wait_for("trial 2")
    (worker,) = workers(ray_hosts)
    os.kill(worker, signal.SIGKILL)
    assert driver.finish() == 0, driver.said
    study = read_study(home)
    assert outcome(study) == uninterrupted_sweep
    require_whole(home, study)


@pytest.mark.slow
def test_the_last_node_is_lost_and_comes_back(
    ray_hosts: Hosts, drive: Drive, home: Path, uninterrupted_sweep: Trials
) -> None:
    driver = drive("executor.wait_sec=2")
    driver.wait_for("trial 1")
    ray_hosts.stop("node")
    driver.wait_for("has left the cluster")
    ray_hosts.start_node()
    assert driver.finish() == 0, driver.said
    assert "has joined" in driver.said
    study = read_study(home)
    assert outcome(study) == uninterrupted_sweep
    require_whole(home, study)


@pytest.mark.slow
def test_a_silent_worker_counts_as_lost(
    ray_hosts: Hosts, drive: Drive, home: Path, uninterrupted_sweep: Trials
) -> None:
    driver = drive("executor.silence_sec=3")
    driver.wait_for("trial 0")
    (worker,) = workers(ray_hosts)
    os.kill(worker, signal.SIGSTOP)
    assert driver.finish() == 0, driver.said
    assert outcome(read_study(home)) == uninterrupted_sweep


@pytest.mark.slow
def test_a_driver_that_is_killed_resumes_without_the_cluster(
    ray_hosts: Hosts, drive: Drive, home: Path, uninterrupted_sweep: Trials
) -> None:
    """The executor is in no identity."""
    driver = drive()
    driver.wait_for("trial 1")
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.finish() == -signal.SIGKILL
    until = time.monotonic() + 20
    while workers(ray_hosts):
        assert time.monotonic() < until, "a worker outlives its driver"
        time.sleep(0.1)
    study = sweep_here(*ALONE).study
    assert outcome(study) == uninterrupted_sweep
    require_whole(home, study)


@pytest.mark.slow
def test_a_command_without_a_worker_says_so_and_ends_on_ctrl_c(drive: Drive, tmp_path: Path, empty_store: Path) -> None:
    first = drive("sweep.num_trials=1000")
    first.wait_for("trial 0")
    other_home = tmp_path / "other"
    (other_home / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, other_home / "mlruns" / "mlflow.db")
    second = drive(within=other_home)
    second.wait_for("waiting for a worker")
    began = time.monotonic()
    os.kill(second.pid, signal.SIGINT)
    assert second.finish() == 130, second.said
    assert time.monotonic() - began < 15
    os.kill(first.pid, signal.SIGINT)
    assert first.finish() == 130, first.said
    assert "the same command resumes" in first.said


@pytest.mark.slow
def test_a_node_with_other_code_is_refused(drive: Drive, tmp_path: Path) -> None:
    """The driver's code differs from the nodes'."""
    changed = tmp_path / "src"
    shutil.copytree(ROOT / "src" / "mnist_pipeline", changed / "mnist_pipeline")
    module = changed / "mnist_pipeline" / "train" / "fit.py"
    module.write_text(module.read_text() + "\n\nCHANGED = True\n")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "pyproject.toml").touch()
    driver = drive(PYTHONPATH=str(changed))
    assert driver.finish() == 1, driver.said
    (line,) = [line for line in driver.said.splitlines() if line.startswith("error:")]
    assert "mnist_pipeline.train.fit" in line


@pytest.mark.slow
def test_a_node_with_other_settings_is_refused(on_head: Callable[..., Finished]) -> None:
    refused = sweep(on_head, TF_ENABLE_ONEDNN_OPTS="0")
    assert refused.returncode == 1
    assert "TF_ENABLE_ONEDNN_OPTS unset there, 0 here" in refused.stderr


@pytest.mark.parametrize(
    ("overrides", "environment", "expected"),
    [
        (["executor.address=null"], {}, (2, "executor.address")),
        ([f"executor.address=http://{ADDRESS}"], {}, (2, "HOST:PORT")),
        ([f"executor.address=me:secret@{ADDRESS}"], {}, (2, "executor.address=***@")),
        (["executor.address=10.77.0.1:1"], {}, (1, "Connection refused")),
        (["executor.address=nowhere.invalid:6379"], {}, (1, "no Ray cluster answers at nowhere.invalid:6379")),
        (["executor.num_cpus=64"], {}, (1, "executor.num_cpus=64: no node")),
        (["executor.resources={GPU: 0.25}"], {}, (1, "executor.resources.GPU=0.25: no node")),
        pytest.param(
            [], {"RAY_AUTH_TOKEN": "0" * 64}, (1, "this one's token is not the cluster's"), marks=pytest.mark.slow
        ),
        pytest.param(
            [],
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "disabled"},
            (1, "this command has none"),
            marks=pytest.mark.slow,  # Ray tries for 20 s
        ),
    ],
)
def test_bad_input_is_one_line(
    overrides: list[str], environment: dict[str, str], expected: tuple[int, str], on_head: Callable[..., Finished]
) -> None:
    refused = sweep(on_head, *overrides, **environment)
    code, text = expected
    (line,) = refused.stderr.splitlines()
    assert (refused.returncode, text in line) == (code, True), refused.stderr
    assert refused.stdout == ""


@pytest.mark.slow
def test_runs_of_a_multirun_are_trained_on_the_cluster(
    home: Path, tmp_path: Path, empty_store: Path, on_head: Callable[..., Finished]
) -> None:
    """And so is a single run. Its result is that of this machine."""
    words = ("train", "-m", "preset=smoke", "train.seed=0,1")
    there = on_head(*words, *ON_RAY)
    assert there.returncode == 0, there.stderr
    here = tmp_path / "here"
    (here / "mlruns").mkdir(parents=True)
    shutil.copy(empty_store, here / "mlruns" / "mlflow.db")
    assert run_command(*words, cwd=here, env={**os.environ, "MNIST_PIPELINE_HOME": str(here)}).returncode == 0
    assert digests(home) == digests(here)
    alone = on_head("train", "preset=smoke", "train.seed=1", "force=true", *ON_RAY)
    assert alone.returncode == 0, alone.stderr
    assert digests(here)["1"][:32] in alone.stdout


@pytest.fixture
def two_cpus(home: Path) -> Iterator[Hosts]:
    """A cluster of their own for tests that break it, with a CPU on each host."""
    with ray_cluster.running() as hosts:
        hosts.start_head()
        hosts.start_node()
        yield hosts


def finish_with(hosts: Hosts, home: Path, *overrides: str) -> None:
    """The same command again ends the sweep; it is whole, and its values are those of its points."""
    driver = Driver(hosts, home, *overrides)
    assert driver.finish() == 0, driver.said
    study = read_study(home)
    assert [trial.state.is_finished() for trial in study.trials()] == [True] * 8
    require_whole(home, study)


@pytest.mark.slow
def test_a_host_that_is_cut_off_loses_its_trial_and_comes_back(two_cpus: Hosts, home: Path) -> None:
    driver = Driver(two_cpus, home, "sweep.num_workers=2", "sweep.num_trials=16", "executor.silence_sec=5")
    driver.wait_for("trial 2")
    two_cpus.cut()
    driver.wait_for("trial 9")  # by the head alone
    two_cpus.mend()
    two_cpus.stop("node")  # cut off for too long, it ends itself; a supervisor starts it again
    two_cpus.start_node()
    assert driver.finish() == 0, driver.said
    study = read_study(home)
    assert len(study.trials()) == 16
    require_whole(home, study)


@pytest.mark.slow
def test_the_head_dies_and_the_same_command_resumes_on_a_new_one(two_cpus: Hosts, home: Path) -> None:
    driver = Driver(two_cpus, home, "sweep.num_workers=2")
    driver.wait_for("trial 2")
    two_cpus.stop("head")
    two_cpus.stop("node")
    assert driver.finish() == 1, driver.said
    assert driver.said.splitlines()[-1].startswith(f"error: the head of the Ray cluster at {ADDRESS} is gone")
    two_cpus.start_head()
    two_cpus.start_node()
    finish_with(two_cpus, home, "sweep.num_workers=2")


@pytest.mark.slow
def test_an_own_model_travels_to_the_node(
    ray_hosts: Hosts, home: Path, tmp_path: Path, on_head: Callable[..., Finished]
) -> None:
    """The driver alone can import it, and the module that it imports."""
    (tmp_path / "own" / "layers").mkdir(parents=True)
    (tmp_path / "own" / "layers" / "__init__.py").write_text("WIDTH = 12\n")
    (tmp_path / "own" / "own_net.py").write_text(
        "import keras\nfrom layers import WIDTH\n\n\n"
        "def build(image_shape: tuple[int, ...], num_classes: int, seed: int, factor: int = 1) -> keras.Model:\n"
        "    keras.utils.set_random_seed(seed)\n"
        "    inputs = keras.Input(image_shape, dtype='uint8')\n"
        "    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))\n"
        "    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Dense(WIDTH * factor)(flat)))\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text("_target_: own_net.build\nfactor: 2\n")
    words = ("train", "--config-dir", str(tmp_path / "conf"), "preset=smoke", "model=own")
    environment = {"PYTHONPATH": f"{tmp_path / 'own'}:{os.environ.get('PYTHONPATH', '')}"}
    drivers = [ray_hosts.inside("head", *command(*words, *overrides)) for overrides in (ON_RAY, ("force=true",))]
    said = [
        subprocess.run(
            words, env=ray_hosts.environment(MNIST_PIPELINE_HOME=str(home), **environment),
            capture_output=True, text=True, check=False,
        )
        for words in drivers
    ]  # fmt: skip
    assert [one.returncode for one in said] == [0, 0], said[0].stderr + said[1].stderr
    there, here = ([line for line in one.stdout.splitlines() if line.startswith("result digest")] for one in said)
    assert there == here
