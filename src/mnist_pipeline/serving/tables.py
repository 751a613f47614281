"""Tables that are written to a file row by row, completely or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self

from mnist_pipeline.system import files
from mnist_pipeline.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.parquet


class _Writer(Protocol):
    def write(self, table: "pd.DataFrame") -> None: ...
    def close(self) -> None: ...


class _Csv:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._has_header = False

    def write(self, table: "pd.DataFrame") -> None:
        table.to_csv(self._file, index=False, header=not self._has_header, float_format="%.7g")
        self._has_header = True

    def close(self) -> None:
        self._file.close()


class _Json:
    """One array of objects, one per line."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._separator = "[\n"

    def write(self, table: "pd.DataFrame") -> None:
        for row in table.to_dict("records"):
            self._file.write(self._separator + json.dumps(row))
            self._separator = ",\n"

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()  # report a path that cannot be written at once, not after the model was loaded
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: "pd.DataFrame") -> None:
        import pyarrow.parquet  # imported here, because the other formats do not need it

        rows = pyarrow.Table.from_pandas(table, preserve_index=False)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


_WRITERS: dict[str, Callable[[Path], _Writer]] = {".csv": _Csv, ".json": _Json, ".parquet": _Parquet}
FORMATS = tuple(_WRITERS)


class TableFile:
    """A table that grows by rows, as CSV, JSON or Parquet by its suffix.

    It is written beside its final path, and moved there at the end of a `with` block that nothing interrupts. A table
    without rows is not written.

    Raises:
        UserError: It cannot be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_rows = False
        with files.reporting_errors(self._path):
            self._place = path.resolve()  # a link stays a link
            self._unfinished = files.beside(self._place)
            self._writer: _Writer = _WRITERS[path.suffix.lower()](self._unfinished)

    def write(self, table: "pd.DataFrame") -> None:
        """Append rows, which always have the same columns."""
        self._has_rows = True
        with files.reporting_errors(self._path):
            self._writer.write(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with files.reporting_errors(self._path):
                self._writer.close()
                if error is None and self._has_rows:
                    files.move(self._unfinished, self._place)
        except UserError:
            if error is None:  # otherwise the first error is the one to report
                raise
        finally:
            self._unfinished.unlink(missing_ok=True)
