"""What tracking a run means. `mlflow_tracking.py` does it in MLflow; the tests have a twin in memory."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Split

if TYPE_CHECKING:
    import keras

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

EPOCH_METRICS = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "time/epoch_sec")
TRAINING_TAG = "training.fingerprint"
"""The tag by which runs that train the same way, however long, find each other."""

PATCH_TAG = "git.patch"
"""The tag that says of changes which are in no commit: none (no code was changed), kept (as an artifact), masked (the
artifact lacks secrets, or files that are not code) or lost."""

ALIAS_TAG = "alias"
"""The tag of the runs whose models are champion or challenger: `model@alias`."""

RESUME_TAG = "resume.id"
"""The tag by which a command finds the run again that an earlier one began."""

FILES = "environment/files.json"
"""The list of all files of a run and of its model, with their SHA-256: the last artifact that a run logs."""

FILES_TAG = "files.sha256"
"""The tag with the SHA-256 of that list."""

REPORT = "report/report.html"
"""The page about a run; it is made at any time after the run has finished."""


def describe_tables(*paths: str) -> dict[str, str]:
    """Return the tag by which MLflow shows JSON artifacts as tables, in place and side by side with other runs'.

    They are written as pandas does with `orient="split"`; MLflow's own `log_table` would append to what a killed
    command left.
    """
    return {"mlflow.loggedArtifacts": json.dumps([{"path": path, "type": "table"} for path in paths])}


class Run(Protocol):
    """An open run.

    Attributes:
        is_resumed: Whether it was begun by an earlier command. All that is logged again replaces what is there.
    """

    run_id: str
    address: str
    is_resumed: bool

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        """Log figures of one step, in one call. The very same point sent again adds nothing."""

    def list_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` has been logged."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add or change tags."""

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log that the run used `split`, with its own digest."""

    def log_artifacts(self, folder: Path) -> None:
        """Log every file in `folder` under the folder's own name."""

    def log_model(
        self,
        model: "keras.Model",
        *,
        example: npt.NDArray[np.uint8],
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int,
    ) -> Predict:
        """Log the run's model, from uint8 images to float32 probabilities; return it as a caller will load it.

        `metrics` are those of the run's points, at `step` and `timestamp_ms`, that are the model's own.
        """

    def log_files(self) -> None:
        """Log the list of all files of the run and of its model, with their SHA-256."""


@dataclass(frozen=True)
class PastRun:
    """A run that is in the store, with everything that it logged.

    Attributes:
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED.
        started_ms: In milliseconds of Unix time.
        metrics: The last value of each.
        read: Returns the bytes of an artifact.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    address: str
    started_ms: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Point:
    """The metrics of an epoch.

    Attributes:
        number: Of the epoch, counted from 1.
        metrics: By the names that they are tracked under.
        ended_ms: When the epoch ended, in milliseconds of Unix time: the time stamp of the metrics.
    """

    number: int
    metrics: Mapping[str, float]
    ended_ms: int


@dataclass(frozen=True)
class PastTraining:
    """The epochs that a run has tracked, from the first without a gap."""

    run_id: str
    points: tuple[Point, ...]


class Tracker(Protocol):
    """Opens runs and finds them again."""

    def run(
        self,
        *,
        kind: str,
        name: str,
        description: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        resume_id: str,
    ) -> AbstractContextManager[Run]:
        """Open a run, or the one again that was opened with the same `resume_id`.

        At the end it is FINISHED, or FAILED or KILLED with a `reason`, and what was raised goes on.
        """

    def find_training(self, mark: str) -> PastTraining | None:
        """Return the longest training that any run has tracked under the training fingerprint `mark`."""

    def find_finished(self, tags: Mapping[str, str]) -> PastRun | None:
        """Return the newest FINISHED run with all of `tags`; one whose files or model are gone does not count."""
