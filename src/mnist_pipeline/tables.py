"""Tables that are written to a file while they grow, whole or not at all."""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self

from mnist_pipeline.errors import UserError

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
    """One array of objects, a line each."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._separator = "[\n"

    def write(self, table: "pd.DataFrame") -> None:
        for row in table.to_dict("records"):
            self._file.write(self._separator + json.dumps(row))
            self._separator = ",\n"

    def close(self) -> None:
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: "pd.DataFrame") -> None:
        import pyarrow.parquet  # only here: it takes its time, and the other formats do without

        rows = pyarrow.Table.from_pandas(table, preserve_index=False)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        import pyarrow.parquet

        if self._writer is None:
            pyarrow.parquet.write_table(pyarrow.table({}), self._path)
        else:
            self._writer.close()


_WRITERS: dict[str, Callable[[Path], _Writer]] = {".csv": _Csv, ".json": _Json, ".parquet": _Parquet}
FORMATS = tuple(_WRITERS)


class TableFile:
    """A table that grows by rows, as CSV, JSON or Parquet by the ending of its name.

    It is written beside its place, and moved there when it is whole: at the end of a `with` that nothing interrupts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
        with self._telling():
            self._writer: _Writer = _WRITERS[path.suffix.lower()](self._unfinished)

    def write(self, table: "pd.DataFrame") -> None:
        """Append rows, which always have the same columns."""
        with self._telling():
            self._writer.write(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._telling():
                self._writer.close()
                if error is None:
                    self._unfinished.replace(self._path)
        except UserError:
            if error is None:  # else what went wrong first is what the user must hear of
                raise
        finally:
            self._unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror or error}): give another place"
            ) from error
