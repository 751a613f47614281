"""What the measurements have in common: a command's time in a home of its own, and the table's rows."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_pipeline.system.environment import prepare_libraries

prepare_libraries()  # for this process and the children that it measures

ROOT = Path(__file__).parents[1]
PIPELINE = [str(Path(sys.executable).parent / "mnist-pipeline")]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    measured: str
    bound: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.measured} | {self.bound} |"


@dataclass(frozen=True)
class Child:
    """A child process that ended."""

    seconds: float
    peak_bytes: int
    output: str


def run(arguments: list[str], *, ok: tuple[int, ...] = (0,), home: Path | None = None) -> Child:
    """Run a command, in a home of its own unless one is given, and return what it took."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile("w+") as output:
        environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home or empty), "TF_CPP_MIN_LOG_LEVEL": "3"}
        start = time.perf_counter()
        child = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in ok:
            raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}")
        output.seek(0)
        return Child(seconds=seconds, peak_bytes=usage.ru_maxrss * 1024, output=output.read())


def time_first_line(arguments: list[str], *, home: Path) -> float:
    """Return the seconds until a command has printed its first line that is not empty."""
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
    start = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        next(line for line in child.stdout if line.strip())
        seconds = time.perf_counter() - start
        child.stdout.read()
    return seconds


def in_turns(first: list[str], second: list[str], *, times: int) -> list[tuple[Child, Child]]:
    """Run two commands in turns; the first of each is a warm-up and not counted."""
    pairs = [(run(first), run(second)) for _ in range(times + 1)]
    return pairs[1:]


def describe_speed(pairs: Sequence[tuple[float, float]]) -> str:
    """Return how many times faster ours is than the other, from pairs of their seconds: medians."""
    ratio = statistics.median(other / ours for ours, other in pairs)
    ours, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"{ratio:.1f} times faster ({ours:.1f} s against {other:.1f} s)"


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python."""
    return [sys.executable, *arguments]
