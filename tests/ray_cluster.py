"""A Ray cluster of two hosts: network namespaces of our own, joined by a cable that can be cut.

The hosts share this machine's kernel, clock and files. Nothing outside of them can reach the cluster.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
HEAD_IP, NODE_IP = "10.77.0.1", "10.77.0.2"
ADDRESS = f"{HEAD_IP}:{PORT}"


@pytest.fixture(scope="session")
def ray_hosts() -> Iterator["Hosts"]:
    """Two hosts with a cluster, whose other host alone has a CPU, for the tests of a process."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the program ip, for network namespaces")
    with running() as hosts:
        hosts.start_head(num_cpus=0)
        hosts.start_node()
        yield hosts


class Hosts:
    """Two network namespaces, `head` and `node`, and the Ray processes in them."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.token = secrets.token_hex(32)
        self.names = {"head": f"{prefix}-head", "node": f"{prefix}-node"}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._num_started = 0

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of who may use the cluster."""
        settings = {
            **{"HOME": str(self.folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token},
            **{"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"},
        }
        return {**os.environ, **settings, **more}

    def inside(self, host: str, *words: str) -> list[str]:
        """Return a command that runs on a host."""
        return ["ip", "netns", "exec", self.names[host], *words]

    def connect(self) -> None:
        """Make the namespaces and the cable."""
        ends = {"head": f"{HEAD_IP}/24", "node": f"{NODE_IP}/24"}
        cables = [f"{self.names[host][-13:]}" for host in ends]
        for host in ends:
            _ip("netns", "add", self.names[host])
        _ip("link", "add", cables[0], "netns", self.names["head"], "type", "veth", "peer", "name", cables[1],
            "netns", self.names["node"])  # fmt: skip
        for (host, address), cable in zip(ends.items(), cables, strict=True):
            _ip("-n", self.names[host], "link", "set", "lo", "up")
            _ip("-n", self.names[host], "addr", "add", address, "dev", cable)
            _ip("-n", self.names[host], "link", "set", cable, "up")
        self._cable = cables[1]

    def cut(self) -> None:
        """Cut the cable."""
        _ip("-n", self.names["node"], "link", "set", self._cable, "down")

    def mend(self) -> None:
        """Mend it."""
        _ip("-n", self.names["node"], "link", "set", self._cable, "up")

    def start_head(self, *, num_cpus: int = 1) -> None:
        """Start the head, and wait until it answers."""
        settings = ("--head", "--include-dashboard=false", f"--port={PORT}", f"--node-ip-address={HEAD_IP}")
        self._start("head", *settings, f"--num-cpus={num_cpus}")

    def start_node(self, *, num_cpus: int = 1) -> None:
        """Start the other node, and wait until the head knows it."""
        self._start("node", f"--address={ADDRESS}", f"--node-ip-address={NODE_IP}", f"--num-cpus={num_cpus}")

    def _start(self, host: str, *words: str) -> None:
        # A head that starts again in its old folder takes the cluster of another test for its own one.
        self._num_started += 1
        words = (
            *("start", "--block", "--disable-usage-stats", f"--temp-dir={self.folder}/{host}{self._num_started}"),
            *("--object-store-memory=200000000", *words),
        )
        with (self.folder / f"{host}.log").open("wb") as log:
            self._children[host] = subprocess.Popen(
                self.inside(host, RAY, *words),
                env=self.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd="/",
            )  # fmt: skip
        until = time.monotonic() + 90
        while b"Ray runtime started" not in (self.folder / f"{host}.log").read_bytes():
            assert time.monotonic() < until, (self.folder / f"{host}.log").read_text()
            assert self._children[host].poll() is None, (self.folder / f"{host}.log").read_text()
            time.sleep(0.1)

    def pids(self, host: str, program: str) -> list[int]:
        """Return the processes of a host whose command line has this word."""
        session = self._children[host].pid
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if int(fields[3]) == session and program in words:
                    found.append(int(folder.name))
        return found

    def stop(self, host: str) -> None:
        """End a host's Ray as a power failure does."""
        child = self._children.pop(host, None)
        if child is None:
            return
        for pid in {child.pid, *members(child.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait(30)

    def close(self) -> None:
        """Remove everything."""
        for host in list(self._children):
            self.stop(host)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def members(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3]) == leader:
                found.append(int(folder.name))
    return found


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def running() -> Iterator[Hosts]:
    """Two hosts without a cluster yet."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the path of a socket has at most 100 bytes
    hosts = Hosts(folder, f"mp{secrets.token_hex(3)}")
    try:
        try:
            hosts.connect()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield hosts
    finally:
        hosts.close()
        shutil.rmtree(folder, ignore_errors=True)
