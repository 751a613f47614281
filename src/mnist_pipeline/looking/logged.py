"""What a run logged, read back; what is missing is noted."""

import io
import json
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_pipeline.looking.page import Picture, Text
from mnist_pipeline.tracking import PastRun

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

    def read_json(self, path: str) -> Any:
        """Return the value in a JSON file; None where it cannot be read."""
        content = self.read(path)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            self.miss(path)
            return None

    def read_table(self, path: str) -> pd.DataFrame | None:
        """Return a table that was logged as CSV or Parquet; None where it cannot be read."""
        content = self.read(path)
        try:
            if content is None:
                return None
            return (pd.read_parquet if path.endswith(".parquet") else pd.read_csv)(io.BytesIO(content))
        except (ValueError, OSError):
            self.miss(path)
            return None

    def picture(self, path: str, *, alt: str) -> Picture | Text:
        """Return a picture that was logged as PNG; where it is not there, the text that says so."""
        content = self.read(path)
        return Text(f"{path} is missing.", is_warning=True) if content is None else Picture(alt, content)

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
