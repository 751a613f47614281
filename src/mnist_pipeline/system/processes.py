"""Which process something belongs to, and whether that still lives: a pid alone may be another process by now."""

import functools
import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        machine: Digest of what tells the machine from others of its name.
        space: In which its pid counts: until the next boot, in one container.
        started: When it started, in the machine's own count: clocks that are set do not matter.
    """

    pid: int
    host: str
    machine: str
    space: str
    started: str

    def to_json(self) -> str:
        """Return the process as a text for `read`."""
        return json.dumps(asdict(self))


def current() -> Process:
    """Return this process."""
    pid = os.getpid()
    return Process(pid, platform.node() or "unknown", _machine(), _space(), _find_start(pid) or "")


def read(text: str | None) -> Process | None:
    """Return the process in a text of `Process.to_json`; None if it is no such text."""
    try:
        return Process(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None


def is_alive(process: Process) -> bool | None:
    """Return whether a process still runs, stopped or not; None if it ran on another machine, or in a container."""
    here = current()
    if (process.host, process.machine) != (here.host, here.machine):
        return None
    boot, _, container = process.space.partition(" ")
    if boot != here.space.partition(" ")[0]:
        return False  # the machine has started again since
    if container != here.space.partition(" ")[2]:
        return None
    return bool(process.started) and _find_start(process.pid) == process.started


@functools.cache
def _machine() -> str:
    return hashlib.sha256(_read("/etc/machine-id").encode()).hexdigest()[:12]


@functools.cache
def _space() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it is not a path)
    except OSError:
        namespace = ""
    return f"{_read('/proc/sys/kernel/random/boot_id')} {namespace}"


def _find_start(pid: int) -> str | None:
    """Return when a process started; None if there is none, or it has ended and only its parent does not know yet."""
    status = _read(f"/proc/{pid}/stat")
    if status:
        fields = status.rpartition(")")[2].split()  # the name before may have spaces and brackets
        return None if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return None
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
