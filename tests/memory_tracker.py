"""The tracker's twin in memory."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.tracking.record import RunRecord, Tag
from mnist_pipeline.tracking.tracker import Predict, RecordedTraining, Run, RunSpec


@dataclass
class MemoryRun:
    run_id: str = "memory"
    name: str = ""
    address: str = "memory://"
    trials_page: str = "/trials"
    is_resumed: bool = False
    status: str = "RUNNING"
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int, int], float] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    model: keras.Model | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return {key: value for (key, _, _), value in sorted(self.points.items(), key=lambda point: point[0][1])}

    def past(self) -> RunRecord:
        return RunRecord(
            run_id=self.run_id,
            experiment_id="memory",
            name=self.name,
            status=self.status,
            address=self.address,
            started_ms=0,
            params={key: str(value) for key, value in self.params.items()},
            metrics=self.metrics,
            tags=self.tags,
            read_bytes=self._read,
        )

    def _read(self, path: str) -> bytes:
        if path not in self.artifacts:
            raise FileNotFoundError(path)
        return self.artifacts[path]

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        self.events.append(f"metrics {step}")
        self.points.update({(key, step, timestamp_ms): value for key, value in metrics.items()})

    def list_steps(self, metric: str) -> set[int]:
        return {step for key, step, _ in self.points if key == metric}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags = {**self.tags, **tags}

    def show_trials(self, *, params: Sequence[str], metric: str) -> None:
        self.events.append(f"trials by {metric}")

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        self.splits[context] = split.digest

    def log_artifacts(self, folder: Path) -> None:
        self.events.append(folder.name)
        self.artifacts.update({f"{folder.name}/{path.name}": path.read_bytes() for path in folder.iterdir()})

    def prepare_model(self) -> None:
        pass

    def log_model(
        self,
        model: keras.Model,
        *,
        example: npt.NDArray[np.uint8],
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int,
    ) -> Predict:
        self.events.append("logged model")
        self.model = model
        return lambda images: np.asarray(model(images, training=False))

    def log_files(self) -> None:
        self.events.append("files")


class MemoryTracker:
    def __init__(self) -> None:
        self.runs: list[MemoryRun] = []

    @contextlib.contextmanager
    def run(self, spec: RunSpec) -> Iterator[Run]:
        known = [run for run in self.runs if run.tags[Tag.RESUME_ID] == spec.resume_id and run.status != "FINISHED"]
        run = known[0] if known else MemoryRun(name=spec.name)
        run.is_resumed, run.status, run.params = bool(known), "RUNNING", dict(spec.params)
        run.tags = {Tag.KIND: spec.kind, Tag.RESUME_ID: spec.resume_id, **spec.tags}
        if not known:
            self.runs.append(run)
        try:
            yield run
        except BaseException:
            run.status = "FAILED"
            raise
        run.status = "FINISHED"

    def find_interrupted(self, tags: Mapping[str, str], params: Mapping[str, str]) -> list[RunRecord]:
        return []

    def find_training(self, fingerprint: str) -> RecordedTraining | None:
        return None

    def find_finished(self, tags: Mapping[str, str]) -> RunRecord | None:
        found = [run for run in self.runs if run.status == "FINISHED" and tags.items() <= run.tags.items()]
        return found[-1].past() if found else None
