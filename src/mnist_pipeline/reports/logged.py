"""The record of a run as the reports read it: what is missing is noted, and the rest is shown."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd

from mnist_pipeline.reports.page import Item, Picture, Section, Text
from mnist_pipeline.tracking.record import RecordError, RunRecord

_MOST_NAMED = 2

T = TypeVar("T")


class Logged:
    """The artifacts of a run.

    Attributes:
        missing: The paths of those that were asked for and cannot be used.
    """

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self.missing: list[str] = []

    def read(self, path: str) -> bytes | None:
        """Return the bytes of an artifact; None where it is missing."""
        return self._try(lambda: self.run.read(path))

    def read_optional(self, path: str) -> bytes | None:
        """Return the bytes of an artifact that need not exist; None where it does not."""
        try:
            return self.run.read(path)
        except RecordError:
            return None

    def read_json(self, path: str) -> dict[str, Any] | None:
        """Return the object in a JSON artifact; None where it is missing or damaged."""
        return self._try(lambda: self.run.read_json(path))

    def read_texts(self, path: str) -> dict[str, str] | None:
        """Return the object in a JSON artifact whose values are all strings; None where it is missing or damaged."""
        return self._try(lambda: self.run.read_texts(path))

    def read_yaml_list(self, path: str) -> list[str] | None:
        """Return the list in a YAML artifact, as strings; None where it is missing or damaged."""
        return self._try(lambda: self.run.read_yaml_list(path))

    def read_table(self, path: str, *, columns: Sequence[str]) -> pd.DataFrame | None:
        """Return a CSV or Parquet artifact; None where it is missing or damaged, has no rows, or lacks columns."""
        return self._try(lambda: self.run.read_table(path, columns=columns))

    def read_history(self) -> pd.DataFrame | None:
        """Return what `RunRecord.read_history` does; None where it is missing or damaged."""
        return self._try(self.run.read_history)

    def read_predictions(self) -> pd.DataFrame | None:
        """Return what `RunRecord.read_predictions` does; None where they are missing or damaged."""
        return self._try(self.run.read_predictions)

    def picture(self, path: str, *, alt: str) -> Picture | Text:
        """Return a PNG artifact as a picture; where it is missing or damaged, a text that says so."""
        content = self._try(lambda: self.run.read_png(path))
        return Text(f"{path} is missing.", is_warning=True) if content is None else Picture(alt, content)

    def section(self, title: str, build: Callable[["Logged"], tuple[Item, ...]]) -> Section:
        """Return a section of what was logged; where that has an impossible shape, a section that says so."""
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
        return f"{self.run.name}, of kind {self.run.kind or 'unknown'}, has no {names} that can be read"

    def miss(self, path: str) -> None:
        """Note that an artifact cannot be used."""
        if path not in self.missing:
            self.missing.append(path)

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except RecordError as error:
            self.miss(error.path)
            return None
