"""A Ray cluster, as the place of executors: how it is reached, what room it has, and who may train there."""

import atexit
import importlib.metadata
import logging
import os
import platform
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from mnist_pipeline.config.sections import ExecutorConfig
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.executor import Executor
from mnist_pipeline.executors.worker import Worker, WorkerDiedError
from mnist_pipeline.system import quiet
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import CLUSTER_EXTRA
from mnist_pipeline.system.patience import OnWait
from mnist_pipeline.system.text import count_of

_PROBE_SEC = 5.0
_WATCH_SEC = 2.0
_GONE_AFTER_SEC = 20.0  # less than the minute after which Ray would end the process without a word of ours
_LAST = -300  # after the temporary files are removed
_NOTICE_AFTER_SEC = 10.0  # a worker with TensorFlow takes some seconds to start
_MOST_NAMED = 3

_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else a command under `uv run` makes Ray install its environment anew
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray is about to make the default, and warns of
}

_log = logging.getLogger(__name__)


def connect(config: ExecutorConfig) -> None:
    """Connect this process, the driver, to the cluster. Call it before handlers of signals are set: Ray sets its own.

    Raises:
        UserError: Ray is not installed, nothing answers, the cluster refuses this process, or no node has what a
            worker takes.
    """
    assert config.address is not None
    _require_answer(config.address)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        with quiet.captured() as said:
            import ray

            from mnist_pipeline.executors import ray_internals

            ray_internals.keep_quiet()
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except ImportError as error:
        raise UserError(f"executor=ray: Ray is not installed; {CLUSTER_EXTRA}") from error
    except Exception as error:  # Ray raises whatever it meets
        raise UserError(_explain(config.address, f"{error} {said().decode(errors='replace')}")) from error
    _require_possible(config)


def _require_answer(address: str) -> None:
    """Probe the port: `ray.init` blocks for minutes where nothing answers."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SEC).close()
    except (OSError, OverflowError) as error:  # the port may be no port
        raise UserError(
            f"no Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error}): start its head (ray "
            f"start --head --port={port}), or give executor.address= another"
        ) from error


def _has_token() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return (Path(named) if named else Path.home() / ".ray" / "auth_token").is_file()


def _explain(address: str, text: str) -> str:
    """Return in one line why Ray does not connect."""
    if "InvalidAuthToken" in text or "Unauthenticated" in text or "authentication token" in text:
        known = "this one's token is not the cluster's" if _has_token() else "this command has none"
        return (
            f"the Ray cluster at {address} takes commands with its token alone, and {known}: copy its "
            "~/.ray/auth_token here, or set RAY_AUTH_TOKEN"
        )
    if "Version mismatch" in text:
        versions = re.findall(r"(Ray|Python): *([\w.+]+)", text)
        theirs = " and ".join(f"{name} {version}" for name, version in versions[:2])
        return (
            f"the Ray cluster at {address} has {theirs or 'another version'}, this command has Ray "
            f"{importlib.metadata.version('ray')} and Python {platform.python_version()}: install the same on both"
        )
    if "node_ip_address" in text or "raylet" in text.lower() or "node manager" in text.lower():
        return (
            f"this machine is no node of the Ray cluster at {address}: join it (ray start --address={address}; with "
            "--num-cpus=0 it trains nothing)"
        )
    shown = " ".join(text.split())[:200]
    return f"{address} answers, but not as a Ray cluster that takes this command ({shown}): look at executor.address"


def _require_possible(config: ExecutorConfig) -> None:
    """Refuse what no node has, unless the nodes of a cluster without any CPU are still to come."""
    alive = [node["Resources"] for node in _list_nodes() if node["Alive"]]
    if not any("CPU" in resources for resources in alive):
        return
    for name, amount in _list_needed(config).items():
        most = max((resources.get(name, 0.0) for resources in alive), default=0.0)
        if most < amount:
            key = "executor.num_cpus" if name == "CPU" else f"executor.resources.{name}"
            raise UserError(f"{key}={amount:g}: no node of the cluster has that much, the most is {most:g}")


def _list_needed(config: ExecutorConfig) -> dict[str, float]:
    """Return what each worker takes of a node."""
    return {"CPU": config.num_cpus, **config.resources}


class Cluster:
    """The places for workers on a cluster that this process is connected to.

    Args:
        config: Says what each worker takes.
        modules: That the configuration names: the user's own are sent to the nodes.
        num_workers: How many; None: as many as there is room for, with the nodes that join later.
        on_wait: See `patience.OnWait`.
        on_other_cpu: Told once of each node whose processor may compute other bits.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        *,
        modules: Sequence[str],
        num_workers: int | None,
        on_wait: OnWait,
        on_other_cpu: Callable[[str], None],
    ) -> None:
        import ray

        from mnist_pipeline.executors import ray_actor

        self._config = config
        self._modules = tuple(modules)
        self._num_workers = num_workers
        self._on_wait = on_wait
        self._on_other_cpu = on_other_cpu
        self._packed = ray_actor.pack(self._modules)
        self._own = ray_actor.describe(self._modules)
        self._others: set[str] = set()
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._has_said_waiting = False
        self._nodes: dict[str, str] = {}
        self._looked = 0.0
        self._answered = time.monotonic()
        self._gone: UserError | None = None
        self._room = 0
        self._put: dict[str, Any] = {}
        self._trainer = ray.remote(ray_actor.Trainer)
        room = self.count()
        nodes, workers = count_of(len(self._nodes), "node"), count_of(self._room, "worker")
        _log.info("cluster   %s: %s, room for %s", config.address, nodes, workers)
        if num_workers is not None and num_workers > self._room:
            _log.warning(
                "the cluster has room for %d of the %d workers: the others wait for a node that joins it",
                self._room,
                room,
            )

    def count(self) -> int:
        """Return how many executors there are to be now; nodes that come and go are logged.

        Raises:
            UserError: The head of the cluster does not answer any more.
        """
        with self._lock:
            if time.monotonic() - self._looked >= _WATCH_SEC:
                self._look()
                self._looked = time.monotonic()
            if self._gone is not None:
                raise self._gone
            return self._num_workers or max(self._room, 1)

    def make(self, index: int) -> Executor:
        """Return an executor of the cluster."""
        return Executor(self._start, index=index, wait_sec=self._config.wait_sec)

    def _share(self, found: Found) -> Any:
        """Return Ray's reference to a data set, which it copies once to each node that needs it."""
        import ray

        with self._lock:
            if found.identity not in self._put:
                self._put[found.identity] = ray.put(found)
            return self._put[found.identity]

    def _look(self) -> None:
        try:
            _require_answer(str(self._config.address))
        except UserError as error:  # before Ray is asked, which would wait for the head
            if time.monotonic() - self._answered > _GONE_AFTER_SEC:
                self._gone = UserError(
                    f"the head of the Ray cluster at {self._config.address} is gone: start it again and run the same "
                    "command, which resumes"
                )
                self._gone.__cause__ = error
            return
        self._answered = time.monotonic()
        alive = [node for node in _list_nodes() if node["Alive"]]
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in alive}
        if self._nodes:
            for node_id in nodes.keys() - self._nodes.keys():
                _log.info("cluster   the node %s has joined", nodes[node_id])
            for node_id in self._nodes.keys() - nodes.keys():
                _log.warning("the node %s has left the cluster", self._nodes[node_id])
        self._nodes = nodes
        self._room = sum(self._count_room(node["Resources"]) for node in alive)

    def _count_room(self, resources: Mapping[str, float]) -> int:
        return int(min(resources.get(name, 0.0) / amount for name, amount in _list_needed(self._config).items()))

    def _start(self, goes_on: Callable[[], bool]) -> Worker | None:
        """Start a worker, as soon as a node has room for it; one that is lost meanwhile is started again."""
        from mnist_pipeline.executors import ray_worker

        while self._gone is None and goes_on():
            actor: Any = None
            try:
                actor = self._request()
                about = self._wait(actor.describe.remote(self._modules, self._packed), goes_on)
                if about is None:
                    ray_worker.end(actor)
                    return None
                self._require_same(about)
                worker = ray_worker.RayWorker(
                    actor,
                    about,
                    put=self._share,
                    silence_sec=self._config.silence_sec,
                    is_gone=lambda: self._gone is not None,
                )
                worker.prepare()
                return worker
            except (WorkerDiedError, *ray_worker.LOST) as error:
                ray_worker.end(actor)
                _log.debug("a worker was lost before it was ready (%s)", error)
                time.sleep(ray_worker.LOOK_SEC)
            except BaseException:
                ray_worker.end(actor)
                raise
        return None

    def _request(self) -> Any:
        """Return Ray's handle of a new actor, which waits until a node has room for it."""
        others = {name: amount for name, amount in self._config.resources.items() if name != "GPU"}
        return self._trainer.options(
            num_cpus=self._config.num_cpus,
            num_gpus=self._config.resources.get("GPU", 0),
            resources=others,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
        ).remote()

    def _wait(self, answer: Any, goes_on: Callable[[], bool]) -> Any:
        """Return the answer of a new worker; None if it was waited for long enough."""
        import ray

        from mnist_pipeline.executors import ray_worker

        with self._lock:
            self._num_waiting += 1
        began = time.monotonic()

        def still_goes_on() -> bool:
            if time.monotonic() - began > _NOTICE_AFTER_SEC:
                self._say_waiting()
            return self._gone is None and goes_on()

        try:
            if not ray_worker.wait_for(answer, still_goes_on):
                return None
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            raise self._explain_start(error) from error
        finally:
            with self._lock:
                self._num_waiting -= 1
                is_last = self._num_waiting == 0
                self._has_said_waiting &= not is_last
            if is_last:
                self._on_wait(None)

    def _say_waiting(self) -> None:
        needed = ", ".join(f"{amount:g} free {name}" for name, amount in _list_needed(self._config).items())
        with self._lock:
            if not self._has_said_waiting:
                _log.warning("waiting for a worker: no node of the cluster has %s", needed)
                self._has_said_waiting = True
        self._on_wait(f"{count_of(self._num_waiting, 'worker')}: no node has {needed}")

    def _explain_start(self, error: Exception) -> Exception:
        from mnist_pipeline.executors import ray_worker
        from mnist_pipeline.executors.failure import Cause, Failure

        missing = re.findall(r"(?:ModuleNotFoundError|ImportError): (.*)", str(error))
        if missing:
            return UserError(
                f"a node of the cluster cannot train ({missing[-1]}): install this version of mnist-pipeline there"
            )
        return WorkerDiedError(Failure(Cause.surroundings, ray_worker.shorten(error)), is_lost=True)

    def _require_same(self, about: Any) -> None:
        """Refuse a node that would train by other code, versions or settings."""
        for what, theirs, own in (
            ("versions", about.versions, self._own.versions),
            ("code", about.code, self._own.code),
            ("settings", about.settings, self._own.settings),
        ):
            differing = [name for name in sorted({*theirs, *own}) if theirs.get(name) != own.get(name)]
            if differing:
                shown = ", ".join(
                    name
                    if what == "code"
                    else f"{name} {theirs.get(name, 'unset')} there, {own.get(name, 'unset')} here"
                    for name in differing[:_MOST_NAMED]
                )
                more = f" and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
                raise UserError(
                    f"the node {about.host} has other {what} than {self._own.host} ({shown}{more}): install the same "
                    "on both, and run the same command again"
                )
        if (about.processor, about.cpu) != (self._own.processor, self._own.cpu):
            with self._lock:
                is_new = about.host not in self._others
                self._others.add(about.host)
            if is_new:
                other = f"{about.host}: {about.cpu or about.processor}"
                _log.warning(
                    "%s is another processor than this machine's: results may differ in their last bits", other
                )
                self._on_other_cpu(other)

    def close(self) -> None:
        """Disconnect from the cluster."""
        import ray

        if self._gone is None:
            ray.shutdown()
        else:
            atexit.unregister(ray.shutdown)  # it would wait for the head
            # What Ray leaves running in this process would crash its end.
            Finalize(None, os._exit, args=(UserError.exit_code,), exitpriority=_LAST)


def _list_nodes() -> list[dict[str, Any]]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return nodes
