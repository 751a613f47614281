"""A real disk that is full: a small tmpfs in a mount namespace of its own, which needs root and Linux."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A disk that only the commands run on it see at `path`; this process sees it at `seen`."""

    def __init__(self, path: Path, holder_pid: int) -> None:
        self.path = path
        self.seen = Path(f"/proc/{holder_pid}/root{path}")
        self._namespace = f"/proc/{holder_pid}/ns/mnt"
        self._ballast = self.seen / "ballast"

    def leave(self, num_kb: int) -> None:
        """Fill the disk up to the last `num_kb` KB."""
        with self._ballast.open("wb") as file:
            file.truncate(0)
        stat = os.statvfs(self.seen)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize - num_kb * 1024)

    def free(self) -> None:
        """Remove what filled it."""
        self._ballast.unlink()

    def run(self, *command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command that sees the disk."""
        return subprocess.run(
            ["nsenter", f"--mount={self._namespace}", f"--wdns={cwd}", *command],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@contextlib.contextmanager
def mounted(path: Path, *, num_mb: int = 64) -> Iterator[SmallDisk]:
    """Mount a small disk at the folder `path`; skip the test where that is not possible."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        pytest.skip("needs Linux's unshare, nsenter and mount")
    script = f'mount -t tmpfs -o size={num_mb}m small-disk "$0" && echo mounted && exec cat'
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("mounting a disk needs root, in a namespace of its own")
        yield SmallDisk(path, holder.pid)
    finally:
        holder.communicate()  # its input ends, and with it the namespace and the disk
