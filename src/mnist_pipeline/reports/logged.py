"""What a run logged, read back; what is missing is noted."""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_pipeline.pipeline.provenance import PATCH_FILE
from mnist_pipeline.registry import evidence
from mnist_pipeline.reports.page import Item, Picture, Section, Text
from mnist_pipeline.tracking.tracker import PastRun

PATCH = f"environment/{PATCH_FILE}"
PREDICTIONS = "evaluate/predictions.parquet"
HISTORY = "train/history.csv"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_MOST_NAMED = 2


class Logged:
    """The artifacts of a run.

    Attributes:
        missing: The paths of those that were asked for and cannot be read.
    """

    def __init__(self, run: PastRun) -> None:
        self.run = run
        self.missing: list[str] = []

    def read(self, path: str) -> bytes | None:
        """Return the bytes of an artifact; None where it is not there."""
        found = self.look(path)
        if found is None:
            self.miss(path)
        return found

    def look(self, path: str) -> bytes | None:
        """Return the bytes of an artifact that need not be there."""
        try:
            return self.run.read(path)
        except (MlflowException, OSError):
            return None

    def read_json(self, path: str) -> dict[str, Any] | None:
        """Return the object in a JSON file; None where it cannot be read."""
        content = self.read(path)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.miss(path)
            return None
        return found

    def read_texts(self, path: str) -> dict[str, str] | None:
        """Return the object in a JSON file whose values are all texts; None where it cannot be read."""
        found = self.read_json(path)
        if found is None or not all(isinstance(value, str) for value in found.values()):
            self.miss(path)
            return None
        return found

    def read_table(self, path: str, *, columns: Sequence[str]) -> pd.DataFrame | None:
        """Return a table that was logged as CSV or Parquet; None where it has no rows, or lacks columns."""
        content = self.read(path)
        if content is None:
            return None
        try:
            found = (pd.read_parquet if path.endswith(".parquet") else pd.read_csv)(io.BytesIO(content))
        except Exception:  # what the readers raise for a damaged file may be anything
            found = pd.DataFrame()
        if found.empty or not set(columns) <= set(found):
            self.miss(path)
            return None
        return found

    def read_history(self) -> pd.DataFrame | None:
        """Return one row an epoch: epoch, counted from 1, and its metrics, all finite; None where it cannot be read."""
        found = self.read_table(HISTORY, columns=["epoch", "train/loss", "train/accuracy"])
        if found is None or not _is_history(found):
            self.miss(HISTORY)
            return None
        return found

    def read_predictions(self) -> pd.DataFrame | None:
        """Return what the model said of the test images, as `evidence.read_predictions` does."""
        found = evidence.read_predictions(self.run)
        if found is None:
            self.miss(PREDICTIONS)
        return found

    def picture(self, path: str, *, alt: str) -> Picture | Text:
        """Return a picture that was logged as PNG; where it is not there, the text that says so."""
        content = self.read(path)
        if content is not None and content.startswith(_PNG_START):
            return Picture(alt, content)
        self.miss(path)
        return Text(f"{path} is missing.", is_warning=True)

    def section(self, title: str, build: Callable[["Logged"], tuple[Item, ...]]) -> Section:
        """Return a section of what was logged; where that is of no shape that it could be, one that says so."""
        try:
            return Section(title, build(self))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError):
            # A damaged file can hold anything.
            self.miss(f"files for the section {title}")
            return Section(title, (Text("The files for this section are damaged.", is_warning=True),))

    def describe_missing(self) -> str | None:
        """Return in a line what cannot be used; None where nothing was missed."""
        if not self.missing:
            return None
        first, rest = self.missing[:_MOST_NAMED], len(self.missing) - _MOST_NAMED
        names = f"{', '.join(first)} and {rest} more" if rest > 0 else ", ".join(first)
        return f"{self.run.name}, of kind {self.run.tags.get('kind', 'unknown')}, has no {names} that can be read"

    def miss(self, path: str) -> None:
        """Note that an artifact cannot be used."""
        if path not in self.missing:
            self.missing.append(path)


def _is_history(table: pd.DataFrame) -> bool:
    if not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
        return False
    # Larger numbers than a loss can be, or none at all, cannot be drawn.
    are_finite = (table.abs() <= np.finfo(np.float32).max).all(axis=None)
    return bool(are_finite and (table["epoch"] == np.arange(1, len(table) + 1)).all())
