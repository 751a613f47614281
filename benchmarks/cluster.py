"""What a cluster and servers cost: time of a trial, a worker's start and memory, how many workers one driver feeds.

Needs root, for the network namespaces in which the cluster is, and PostgreSQL.
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.measuring import PIPELINE, ROOT, Row, python
from benchmarks.sweep_once import proportional_bytes

sys.path.insert(0, str(ROOT / "tests"))
import postgresql
import ray_cluster

_START = """
import sys, time
from mnist_pipeline.config import compose
from mnist_pipeline.executors import ray_cluster
config = compose.compose(["executor=ray", f"executor.address={sys.argv[1]}"])
ray_cluster.connect(config.executor)
settings = dict(modules=config.modules(), num_workers=1, on_wait=lambda what: None, on_other_cpu=print)
executor = ray_cluster.Cluster(config.executor, **settings).make(0)
began = time.perf_counter()
executor.prepare(lambda: True)
print(time.perf_counter() - began)
"""
WORKERS = (1, 2, 4, 8, 16)
NUM_TRIALS = 30


def measure_cluster() -> Iterator[Row]:
    """Measure all of it on one cluster."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(ray_cluster.running())
        hosts.start_head()
        hosts.start_node()
        server = stack.enter_context(postgresql.running(within=hosts.inside("head")))
        yield from _measure_overhead(hosts, server)
        yield from _measure_growth(hosts, server)


def _run(hosts: ray_cluster.Hosts, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        env = hosts.environment(MNIST_PIPELINE_HOME=home, **environment)
        done = subprocess.run(
            hosts.inside("head", *words), cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done


def _measure_overhead(hosts: ray_cluster.Hosts, server: postgresql.PostgreSQL) -> Iterator[Row]:
    """Compare the time of a trial outside of training: local, in PostgreSQL, on an MLflow server, on Ray."""
    settings = [
        *("preset=smoke", f"sweep.num_trials={NUM_TRIALS}", "sweep.confirm=null", "sweep.num_workers=1"),
        *("sweep.pruner=none", "~sweep.space.train.num_epochs", "train.num_epochs=3"),
    ]
    with _mlflow_server(hosts) as address:
        ways = {
            "local": [],
            "study in PostgreSQL": [f"sweep.storage={server.create_database('overhead')}"],
            "runs on an MLflow server": [f"tracking.uri={address}"],
            "Ray": ["executor=ray", f"executor.address={ray_cluster.ADDRESS}"],
        }
        seconds = {}
        for name, overrides in ways.items():
            done = _run(hosts, python("-m", "benchmarks.sweep_once", "[]", *settings, *overrides))
            found = json.loads(done.stdout)
            ended = sorted(found["ended"])
            seconds[name] = (ended[-1] - ended[4]) / (len(ended) - 5) - sum(found["epoch_sec"]) / len(ended)
    shown = ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in seconds.items())
    yield Row(
        f"time of a trial outside of training, 1 worker, {NUM_TRIALS} trials of 3 epochs on digits", shown, "none"
    )


@contextlib.contextmanager
def _mlflow_server(hosts: ray_cluster.Hosts) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "5000", "--workers", "1"]
        env = hosts.environment(
            MLFLOW_BACKEND_STORE_URI=f"sqlite:///{folder}/mlflow.db", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
        )
        child = subprocess.Popen(
            hosts.inside("head", *python(*words), "--artifacts-destination", f"{folder}/artifacts"),
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health')"
            probe = hosts.inside("head", *python("-c", code))
            while subprocess.run(probe, capture_output=True, check=False).returncode:
                time.sleep(0.3)
            yield "http://127.0.0.1:5000"
        finally:
            child.terminate()
            child.wait(30)


def _measure_growth(hosts: ray_cluster.Hosts, server: postgresql.PostgreSQL) -> Iterator[Row]:
    """Compare trials that sleep: ours, Optuna's script on each node, and Ray Tune."""
    environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    has_tune = not subprocess.run(python("-c", "import ray.tune"), capture_output=True, check=False).returncode
    found: dict[str, dict[int, float]] = {}
    for workers in WORKERS:
        for way, database in (
            ("ours, journal", ""),
            ("ours, PostgreSQL", f"ours{workers}"),
            ("Optuna's script, PostgreSQL", f"optuna{workers}"),
            *([("Ray Tune with OptunaSearch", "")] if has_tune else []),
        ):
            url = server.create_database(database) if database else ""
            kind = "ours" if way.startswith("ours") else "optuna" if way.startswith("Optuna") else "tune"
            words = python("-m", "benchmarks.growth_once", kind, str(workers), str(max(8, 6 * workers)))
            done = _run(hosts, [*words, ray_cluster.ADDRESS, url], **environment)
            line = re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE)[-1]
            found.setdefault(way, {})[workers] = json.loads(line)["trials_per_sec"]
    for way, rates in found.items():
        shown = ", ".join(f"{rate:.2f}" for rate in rates.values())
        what = f"trials a second that sleep 5 epochs of 0.5 s, with {', '.join(map(str, WORKERS))} workers: {way}"
        yield Row(what, shown, "ours at least the others'" if way.startswith("ours") else "compared")
    yield Row("memory of a worker on Ray (PSS)", _measure_memory(hosts), "none")
    seconds = [float(_run(hosts, python("-c", _START, ray_cluster.ADDRESS)).stdout.split()[-1]) for _ in range(3)]
    yield Row("start of a worker on Ray, until TensorFlow is imported", f"{statistics.median(seconds):.1f} s", "none")


def _measure_memory(hosts: ray_cluster.Hosts) -> str:
    words = [*PIPELINE, "sweep", "preset=smoke", "sweep.confirm=null", "sweep.num_trials=30"]
    with tempfile.TemporaryDirectory() as home:
        child = subprocess.Popen(
            hosts.inside("head", *words, "executor=ray", f"executor.address={ray_cluster.ADDRESS}"),
            env=hosts.environment(MNIST_PIPELINE_HOME=home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        most = 0
        while child.poll() is None:
            time.sleep(0.2)
            pids = [pid for host in ("head", "node") for pid in hosts.pids(host, "ray::Trainer")]
            most = max([most, *(proportional_bytes(pid) for pid in pids)])
    return f"{most / 1e6:.0f} MB"


if __name__ == "__main__":
    for row in measure_cluster():
        print(row)
