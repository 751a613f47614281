"""How a run is tracked. `mlflow_tracker.py` does it in MLflow; the tests have a twin in memory."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system import files
from mnist_pipeline.tracking.record import Point, RunRecord

if TYPE_CHECKING:
    import keras

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

Content = str | bytes | Callable[[Path], object]
"""What becomes an artifact: text, bytes, or a function that writes the file."""


class PausedError(Exception):
    """A run stops here and is resumed later: it ends as KILLED, with the message as its reason."""


@dataclass(frozen=True)
class RunSpec:
    """What a run is opened with.

    Attributes:
        kind: One of `record.Kind`.
        name: A number is appended if another run has it, unless the run is one of many of a sweep.
        description: Markdown.
        params: By their dotted keys.
        resume_id: Ties the run to the command: opened a second time, the same run is resumed.
        is_new: Whether it cannot have been opened before, so that no run is looked for.
    """

    kind: str
    name: str
    description: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    resume_id: str
    is_new: bool = False


@dataclass(frozen=True)
class RecordedTraining:
    """The epochs that a run has tracked, from the first without a gap."""

    run_id: str
    points: tuple[Point, ...]


class Run(Protocol):
    """An open run.

    Attributes:
        trials_page: What follows the `#` in the address of the page that `show_trials` makes.
        is_resumed: Whether an earlier command began it. Whatever is logged again replaces what is there.
    """

    run_id: str
    name: str
    address: str
    trials_page: str
    is_resumed: bool

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        """Log the metrics of one step, in one call. The very same point sent again adds nothing."""

    def list_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` has been logged."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add or change tags."""

    def show_trials(self, *, params: Sequence[str], metric: str) -> None:
        """Let the page at `trials_page` compare the run's trials, with these params and this metric as axes."""

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log that the run used `split`, with its own digest."""

    def log_artifacts(self, folder: Path) -> None:
        """Log every file in `folder` under the folder's own name."""

    def prepare_model(self) -> None:
        """Do what `log_model` takes most time for, and what needs no trained model yet."""

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

        `metrics` are the run's points at `step` and `timestamp_ms` that belong to the model.
        """

    def log_files(self) -> None:
        """Log the list of all files of the run and of its model, with their SHA-256."""


class Tracker(Protocol):
    """Opens runs and finds them again."""

    def run(self, spec: RunSpec) -> AbstractContextManager[Run]:
        """Open a run, or resume the one that was opened with the same `resume_id`.

        It ends as FINISHED, or as FAILED or KILLED with a reason; what was raised is raised again.
        """

    def find_training(self, fingerprint: str) -> RecordedTraining | None:
        """Return the longest training that any run has tracked under this training fingerprint."""

    def find_interrupted(self, tags: Mapping[str, str], params: Mapping[str, str]) -> list[RunRecord]:
        """Return the RUNNING and KILLED runs with all of `tags` and `params`, the newest first."""

    def find_finished(self, tags: Mapping[str, str]) -> RunRecord | None:
        """Return the newest FINISHED run with all of `tags`; one whose files or model are gone does not count."""


def log_contents(run: Run, contents: Mapping[str, Content]) -> None:
    """Log artifacts by their paths, all of them in one folder, in one call.

    Raises:
        UserError: The files cannot be written to a temporary folder.
    """
    (stage,) = {path.partition("/")[0] for path in contents}
    with files.scratch() as scratch:
        for path, content in contents.items():
            file = scratch / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                file.write_bytes(content)
            else:
                content(file)
        run.log_artifacts(scratch / stage)
