"""Run one sweep in this process, and print what its trials took, as JSON.

`python -m benchmarks.sweep_once CONFIGURATIONS OVERRIDE...`: a JSON list of trials, or `[]` for what Optuna proposes.
"""

import atexit
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from mnist_pipeline.config.sections import ExecutorName
from mnist_pipeline.executors import forkserver, places

if __name__ == "__main__":  # as the command does it
    gc.disable()
    forkserver.context()

from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.sweep.sweep import sweep
from mnist_pipeline.system.heavy_imports import importing
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Point


class Meter:
    """Notes when trainings end, how long their epochs took, and what all processes have in memory."""

    def __init__(self) -> None:
        self.began = 0.0
        self.ended: list[float] = []
        self.epoch_sec: list[float] = []
        self.bytes: list[int] = []

    def begin(self, **about: Any) -> None:
        """The workers are about to be started."""
        self.began = time.perf_counter()

    def wait(self, what: str | None) -> None:
        """The sweep waits."""

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        """An epoch ended."""
        self.epoch_sec.append(point.metrics["time/epoch_sec"])

    def finish(self, executor: int, **about: Any) -> None:
        """A training ended."""
        self.ended.append(time.perf_counter() - self.began)
        if len(self.ended) % 10 == 0:
            self.bytes.append(sum(proportional_bytes(pid) for pid in [os.getpid(), *descendants(os.getpid())]))


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` has begun, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def proportional_bytes(pid: int) -> int:
    """Return a process's share of the memory, what it shares with others counted in parts (PSS)."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Sweep and print."""
    with importing():
        pass  # all is imported: look for garbage from now on
    configurations, overrides = json.loads(sys.argv[1]), sys.argv[2:]
    if configurations:

        def plan(study: Study, first: object) -> None:
            for params in configurations:
                study.optuna.enqueue_trial(params)

        Study.enqueue_planned = plan  # type: ignore[method-assign, assignment]
    base, config = settings.compose_sweep(overrides)
    request = prepare(base, overrides)
    meter = Meter()
    if request.config.executor.name is ExecutorName.ray:
        places.begin(request.config.executor)
    tracker = MlflowTracker(request.config.tracking)
    sweep(request, config, tracker, progress=meter, stop=StopRequest())
    print(json.dumps({"ended": meter.ended, "epoch_sec": meter.epoch_sec, "bytes": meter.bytes}), flush=True)
    atexit._run_exitfuncs()
    os._exit(0)  # as the command does it


if __name__ == "__main__":
    main()
