"""The record of a run: every artifact, tag, kind and metric is named here once, beside the function that reads it back.

MLflow is not imported: `mlflow_tracker.py` writes records, `runs.py` reads them from a store.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mnist_pipeline.system import plain_yaml
from mnist_pipeline.system.errors import UserError

if TYPE_CHECKING:
    from mnist_pipeline.train.epochs import Epoch

PROBABILITY = "probability_"
"""Prefix of the columns of a table of predictions that hold the probabilities of a class; the class's name follows."""

_PNG_START = b"\x89PNG\r\n\x1a\n"


class Kind:
    """The kinds of runs, as the tag `kind` names them."""

    TRAIN = "train"
    SWEEP = "sweep"  # the parent of a study's runs
    TRIAL = "trial"
    CONFIRM = "confirm"
    FINAL = "final"
    REPRODUCTION = "reproduction"  # of any of those that train
    PROMOTION = "promotion"  # an entry of a ledger


class Tag:
    """The tags of a run."""

    KIND = "kind"
    REASON = "reason"  # why a run is FAILED or KILLED
    PROCESS = "process"  # that writes the run, or wrote it last; see `system/processes.py`
    RESUME_ID = "resume.id"  # by which a command finds the run that an earlier command began
    FINGERPRINT = "fingerprint"
    TRAINING_FINGERPRINT = "training.fingerprint"  # runs with the same one train the same way, however long
    RESULT_DIGEST = "result.digest"
    FILES_DIGEST = "files.sha256"  # of `Artifact.FILES`
    ALIAS = "alias"  # model@alias, of the runs whose models are champion or challenger

    MODEL_TARGET = "model.target"  # the function of the user's that built the model: its module registers the layers

    OTHER_PROCESSORS = "other_processors"  # of a cluster's nodes whose processors may compute other bits

    DATA_REQUESTED = "data.requested"
    DATA_OPTION = "data.option"  # of the group `data`; `data.name` may be another
    DATA_LEAKED = "data.leaked_images"  # test images that are also training images, byte for byte
    DATA_FALLBACK = "data.fallback"  # the data set used instead
    DATA_DROPPED_OVERRIDES = "data.dropped_overrides"
    DATA_SOURCES = "data.sources"
    DATA_DIGEST = "data.digest"
    TEST_DIGEST = "data.test_digest"

    GIT_COMMIT = "mlflow.source.git.commit"
    GIT_DIRTY = "git.dirty"
    GIT_PATCH = "git.patch"  # what became of uncommitted changes: none, kept, masked or lost; see `pipeline/patch.py`

    PARENT = "mlflow.parentRunId"
    STUDY = "study"
    TRIAL_NUMBER = "trial.number"
    TRIAL_STATE = "trial.state"  # COMPLETE, PRUNED or FAIL
    CONFIRMED = "confirm.of"  # name of the candidate
    SOURCE_RUN = "source.run_id"  # the run whose epochs were reused
    REPRODUCED = "reproduction.of"  # id of the run that was trained again
    VERDICT = "reproduction.verdict"  # identical or different
    WINNER = "sweep.winner"
    WINNER_RUN = "sweep.winner_run"  # id of the winner's last training, which was scored on the test split

    DESCRIPTION = "mlflow.note.content"
    USER = "mlflow.user"
    PROGRAM = "mlflow.source.name"
    PROGRAM_KIND = "mlflow.source.type"
    TABLES = "mlflow.loggedArtifacts"


NUM_SHOWN_PREDICTIONS = 8
"""How many predictions the terminal shows, and the picture of the first ones."""


class Artifact:
    """The paths of a run's artifacts, by stage."""

    CONFIG = "config/config.yaml"
    OVERRIDES = "config/overrides.yaml"

    VERSIONS = "environment/versions.json"
    MACHINE = "environment/machine.json"
    PATCH = "environment/code.patch"
    IDENTITY = "environment/identity.json"  # everything that decides the result, the code module by module
    FILES = "environment/files.json"  # every other file of the run and its model, with its SHA-256; logged last

    CLASS_COUNTS = "data/class_counts.csv"
    CLASS_COUNTS_PICTURE = "data/class_counts.png"
    SAMPLES_PICTURE = "data/samples.png"
    AUGMENTED_PICTURE = "data/augmented.png"
    DIGESTS = "data/digests.json"

    LAYERS = "model/layers.csv"
    MODEL_SUMMARY = "model/summary.txt"
    UNTRAINED = "model/untrained.json"

    HISTORY = "train/history.csv"
    LEARNING_CURVES_PICTURE = "train/learning_curves.png"

    PER_CLASS = "evaluate/per_class.csv"
    PER_CLASS_TABLE = "evaluate/per_class.json"
    MISTAKES_TABLE = "evaluate/mistakes.json"
    CONFUSION = "evaluate/confusion.csv"
    CALIBRATION = "evaluate/calibration.csv"
    PREDICTIONS = "evaluate/predictions.parquet"
    CONFUSION_PICTURE = "evaluate/confusion.png"
    RELIABILITY_PICTURE = "evaluate/reliability.png"
    MISTAKES_PICTURE = "evaluate/mistakes.png"
    FIRST_PREDICTIONS_PICTURE = "evaluate/first_predictions.png"

    REPRODUCTION = "reproduction/verdict.json"  # of the last time; a run has it if it was reproduced, or reproduces one

    TRIALS = "sweep/trials.parquet"
    TRIALS_CSV = "sweep/trials.csv"
    TRIALS_TABLE = "sweep/trials.json"
    VERDICT = "sweep/verdict.json"
    VERDICT_PICTURE = "sweep/verdict.png"
    WINNER_PRESET = "sweep/preset/winner.yaml"
    PLOTS = "sweep/plots.html"

    GATES_TABLE = "promotion/gates.json"
    REPORT = "report/report.html"  # logged at any time after the run has finished


INHERITED = (Artifact.VERSIONS, Artifact.MACHINE, Artifact.PATCH)
"""What the runs of a sweep share: the parent has it, and is read instead of a run that lacks it."""


class Metric:
    """The metrics of a run."""

    TRAIN_LOSS = "train/loss"
    TRAIN_ACCURACY = "train/accuracy"
    VALIDATION_LOSS = "validation/loss"
    VALIDATION_ACCURACY = "validation/accuracy"
    EPOCH_SEC = "time/epoch_sec"

    KEPT_EPOCH = "kept/epoch"  # whose weights the model has, where early stopping chose it
    TEST_LOSS = "test/loss"
    TEST_ACCURACY = "test/accuracy"
    CALIBRATION_ERROR = "test/calibration_error"
    TRAIN_SEC = "time/train_sec"
    TOTAL_SEC = "time/total_sec"
    NUM_PARAMETERS = "model/num_parameters"
    MODEL_BYTES = "model/size_bytes"
    WINNER_TEST_ACCURACY = "sweep/winner_test_accuracy"


EPOCH_METRICS = (
    Metric.TRAIN_LOSS,
    Metric.TRAIN_ACCURACY,
    Metric.VALIDATION_LOSS,
    Metric.VALIDATION_ACCURACY,
    Metric.EPOCH_SEC,
)


KEPT = "kept/"
"""Prefix of the metrics of the kept epoch, where early stopping chose it."""


class RecordError(UserError):
    """Something that a run should have logged is missing or damaged.

    Attributes:
        path: Of the artifact.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        super().__init__(f"{path} {problem}: the run cannot be used for this; train it again with force=true")


@dataclass(frozen=True)
class Point:
    """The metrics of one epoch.

    Attributes:
        number: Of the epoch, counted from 1.
        metrics: By name, those of `EPOCH_METRICS`.
        ended_ms: When the epoch ended, in milliseconds of Unix time: the time stamp of the metrics.
    """

    number: int
    metrics: Mapping[str, float]
    ended_ms: int


@dataclass(frozen=True)
class RunRecord:
    """A run, read back from the store.

    Every method that reads an artifact raises RecordError if that is missing or damaged, and UserError if it cannot be
    read now.

    Attributes:
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED.
        address: Of its page in the MLflow UI.
        started_ms: In milliseconds of Unix time.
        metrics: The last value of each; those of epochs as of the kept one.
        read_bytes: Returns an artifact, by its path. Raises FileNotFoundError where there is none, and UserError where
            it cannot be read now.
        is_deleted: Whether it was deleted; MLflow can restore it.
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
    read_bytes: Callable[[str], bytes]
    is_deleted: bool = False

    @property
    def kind(self) -> str:
        """One of `Kind`; empty where another program made the run."""
        return self.tags.get(Tag.KIND, "")

    @property
    def is_finished(self) -> bool:
        """Whether it ended as it should."""
        return self.status == "FINISHED"

    @property
    def label(self) -> str:
        """Its name, and the beginning of its id."""
        return f"{self.name} ({self.run_id[:8]})"

    @property
    def is_untested(self) -> bool:
        """Whether it is not to be scored on the test split, and keeps no model, as the trials of a sweep."""
        is_reproduced = self.kind == Kind.REPRODUCTION and self.is_finished and Metric.TEST_ACCURACY not in self.metrics
        return self.kind in (Kind.TRIAL, Kind.CONFIRM) or is_reproduced

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a sweep by their dotted keys, as its last command had them. Version 0.1 kept params."""
        found = {key: value for key, value in {**self.params, **self.tags}.items() if key.startswith("sweep.")}
        return {key: value for key, value in found.items() if key not in (Tag.WINNER, Tag.WINNER_RUN)}

    def read(self, path: str) -> bytes:
        """Return the bytes of an artifact."""
        try:
            return self.read_bytes(path)
        except FileNotFoundError as error:
            raise RecordError(path, "is missing") from error

    def read_json(self, path: str) -> dict[str, Any]:
        """Return the object in a JSON artifact."""
        try:
            found = json.loads(self.read(path))
        except (ValueError, RecursionError) as error:
            raise RecordError(path, "is damaged") from error
        if not isinstance(found, dict):
            raise RecordError(path, "is damaged")
        return found

    def read_texts(self, path: str) -> dict[str, str]:
        """Return the object in a JSON artifact whose values are all strings."""
        found = self.read_json(path)
        if not all(isinstance(value, str) for value in found.values()):
            raise RecordError(path, "is damaged")
        return found

    def read_yaml_list(self, path: str) -> list[str]:
        """Return the list in a YAML artifact, as strings."""
        try:
            found = plain_yaml.read(self.read(path))
        except ValueError as error:
            raise RecordError(path, "is damaged") from error
        if not isinstance(found, list):
            raise RecordError(path, "is damaged")
        return [str(word) for word in found]

    def read_table(self, path: str, *, columns: Sequence[str]) -> pd.DataFrame:
        """Return a CSV or Parquet artifact.

        Args:
            path: Of the artifact.
            columns: That it must have.
        """
        content = io.BytesIO(self.read(path))
        try:
            if path.endswith(".parquet"):
                found = pd.read_parquet(content)
            else:  # names of classes are text, even "01" and "None"
                found = pd.read_csv(content, dtype={"class": str, "label": str}, keep_default_na=False, na_values=[""])
        except Exception as error:  # the readers may raise anything for a damaged file
            raise RecordError(path, "is damaged") from error
        if found.empty or not set(columns) <= set(found):
            raise RecordError(path, "is damaged")
        return found

    def read_png(self, path: str) -> bytes:
        """Return the bytes of a PNG artifact."""
        content = self.read(path)
        if not content.startswith(_PNG_START):
            raise RecordError(path, "is damaged")
        return content

    def read_history(self) -> pd.DataFrame:
        """Return one row per epoch: epoch, counted from 1, and its metrics, all finite."""
        found = self.read_table(Artifact.HISTORY, columns=["epoch", Metric.TRAIN_LOSS, Metric.TRAIN_ACCURACY])
        if not _is_history(found):
            raise RecordError(Artifact.HISTORY, "is damaged")
        return found

    def read_predictions(self) -> pd.DataFrame:
        """Return one row per test image: index, label, predicted, and a column `probability_<class>` per class."""
        found = self.read_table(Artifact.PREDICTIONS, columns=["index", "label", "predicted"]).reset_index(drop=True)
        if not _are_predictions(found):
            raise RecordError(Artifact.PREDICTIONS, "is damaged")
        return found


def read_epoch_metrics(epoch: "Epoch") -> dict[str, float]:
    """Return the figures of an epoch by the names of `EPOCH_METRICS`."""
    metrics = {
        Metric.TRAIN_LOSS: epoch.train.loss,
        Metric.TRAIN_ACCURACY: epoch.train.accuracy,
    }
    if epoch.validation is not None:
        metrics |= {
            Metric.VALIDATION_LOSS: epoch.validation.loss,
            Metric.VALIDATION_ACCURACY: epoch.validation.accuracy,
        }
    return {**metrics, Metric.EPOCH_SEC: epoch.train_sec}


def name_kept(number: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what a run logs of the epoch that early stopping kept, whose number and metrics these are."""
    scores = {f"{KEPT}{name}": value for name, value in metrics.items() if name != Metric.EPOCH_SEC}
    return {Metric.KEPT_EPOCH: float(number), **scores}


def of_kept_epoch(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a run, those of epochs as of the kept one."""
    kept = {name: metrics[f"{KEPT}{name}"] for name in EPOCH_METRICS if f"{KEPT}{name}" in metrics}
    return {**metrics, **kept}


def tabulate_history(history: Sequence["Epoch"]) -> pd.DataFrame:
    """Return the table that `RunRecord.read_history` reads back."""
    return pd.DataFrame([{"epoch": epoch.number, **read_epoch_metrics(epoch)} for epoch in history])


def tabulate_points(points: Sequence[Point]) -> pd.DataFrame:
    """Return the same table of epochs that have been tracked."""
    return pd.DataFrame([{"epoch": point.number, **point.metrics} for point in points])


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Return the names of the classes in a table of predictions, in the order of the labels."""
    return [str(column).removeprefix(PROBABILITY) for column in predictions if str(column).startswith(PROBABILITY)]


def show_tables(*paths: str) -> dict[str, str]:
    """Return the tag that makes MLflow show JSON artifacts as tables, in place and side by side with other runs.

    They are written as pandas does with `orient="split"`; MLflow's own `log_table` would append to what a killed
    command left.
    """
    return {Tag.TABLES: json.dumps([{"path": path, "type": "table"} for path in paths])}


def _is_history(table: pd.DataFrame) -> bool:
    if not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
        return False
    # Larger numbers than a loss can be, or none at all, cannot be drawn.
    are_finite = (table.abs() <= np.finfo(np.float32).max).all(axis=None)
    return bool(are_finite and (table["epoch"] == np.arange(1, len(table) + 1)).all())


def _are_predictions(table: pd.DataFrame) -> bool:
    names = class_names(table)
    whole = ["index", "label", "predicted"]
    shares = [column for column in table if str(column).startswith(PROBABILITY)]
    kinds = [{dtype.kind for dtype in table[columns].dtypes} for columns in (whole, shares)]
    is_plain = all(isinstance(dtype, np.dtype) for dtype in table.dtypes)  # pandas has others too
    if not names or not is_plain or not kinds[0] <= set("iu") or kinds[1] != {"f"}:
        return False
    are_classes = table[["label", "predicted"]].isin(range(len(names))).all(axis=None)
    is_in_order = (table["index"] == np.arange(len(table))).all()
    return bool(are_classes and is_in_order and table.notna().all(axis=None))
