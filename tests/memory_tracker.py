"""The tracker's twin in memory."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mnist_pipeline.data import Split
from mnist_pipeline.tracking import Predict, Run


@dataclass
class MemoryRun:
    run_id: str = "memory"
    address: str = "memory://"
    status: str = "RUNNING"
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[tuple[str, int], float] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    model: keras.Model | None = None

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.events.append(f"metrics {step}")
        self.metrics.update({(key, step): value for key, value in metrics.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        self.splits[context] = split.digest

    def log_artifacts(self, folder: Path) -> None:
        self.events.append(folder.name)
        self.artifacts.update({f"{folder.name}/{path.name}": path.read_bytes() for path in folder.iterdir()})

    def log_model(self, model: keras.Model, *, example: npt.NDArray[np.uint8], step: int) -> Predict:
        self.events.append("logged model")
        self.model = model
        return lambda images: np.asarray(model(images, training=False))


class MemoryTracker:
    def __init__(self) -> None:
        self.runs: list[MemoryRun] = []

    @contextlib.contextmanager
    def run(
        self, *, kind: str, name: str, description: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[Run]:
        run = MemoryRun(params=dict(params), tags={"kind": kind, **tags})
        self.runs.append(run)
        try:
            yield run
        except BaseException:
            run.status = "FAILED"
            raise
        run.status = "FINISHED"
