"""The file of a SQLite store: whether it belongs to MLflow, and whether it was moved or copied.

MLflow stores the absolute path of every artifact folder. After a move it would write to the old path, and after a copy
to the folders of the original. So both are detected before MLflow opens the file, and `repair` updates the paths.
"""

import contextlib
import functools
import importlib.util
import os
import re
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.database_errors import explain, is_locked
from mnist_pipeline.tracking.retries import retry

OVERVIEW_TAG = "mlflow.sharedViewState.overview"
"""Tag of the experiments whose runs are trainings: it holds their view in the UI."""

KIND_TAG = "mlflow.experimentKind"
"""Tag of all of our experiments."""

_BUSY_SEC = 0.5
_NUM_NEWEST = 20
_MLFLOW_TABLES = {"experiments", "runs"}
# Every column that holds an artifact location, in the schema of MLflow 3.17. Older schemas lack some.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    ("trace_tags", "value"),
)
_FOLDER_COLUMNS = (("runs", "artifact_uri"), ("logged_models", "artifact_location"))

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """The state of a database, read without MLflow.

    Attributes:
        foreign_tables: Names of its tables if it belongs to another program; empty if it is MLflow's, or new.
        old_roots: URIs of the folders that held its artifacts before it was moved or copied.
        schema: The revision of MLflow's schema; None if it is not MLflow's, or new.
    """

    foreign_tables: tuple[str, ...]
    old_roots: tuple[str, ...]
    schema: str | None = None

    @property
    def is_newer(self) -> bool:
        """Whether its schema is of a newer MLflow than the installed one."""
        return self.schema is not None and not is_known(self.schema)

    @property
    def is_older(self) -> bool:
        """Whether its schema is of an older MLflow than the installed one."""
        return self.schema is not None and not self.is_newer and self.schema != newest_schema()


def artifacts_dir(database: Path) -> Path:
    """Return the folder that holds the artifacts of a store."""
    return database.parent / "artifacts"


def artifact_folder(experiment: str) -> str:
    """Return the name of the folder that holds the artifacts of an experiment."""
    return re.sub(r"[^\w-]+", "-", experiment)


def look(database: Path) -> Look:
    """Return the state of a database, without changing it.

    Raises:
        UserError: It stays locked, or cannot be read.
    """
    with _reporting_errors(database):
        return retry(str(database), read, database, lambda connection: _look(connection, database))


def repair(database: Path) -> int:
    """Update every artifact location of a store that was moved or copied: all of them, or none if killed.

    Returns:
        How many locations were changed; 0 if there was nothing to repair.

    Raises:
        UserError: Files are still at the old path, or the database stays locked or cannot be written.
    """
    with _reporting_errors(database):
        return retry(str(database), _repair, database)


def list_newest_runs(database: Path) -> list[str]:
    """Return the artifact locations of the newest runs, in any schema.

    Raises:
        UserError: It stays locked, or cannot be read.
    """
    query = f"SELECT artifact_uri FROM runs ORDER BY start_time DESC LIMIT {_NUM_NEWEST}"

    def list_locations(connection: sqlite3.Connection) -> list[str]:
        return [str(location) for (location,) in connection.execute(query)]

    with _reporting_errors(database):
        return retry(str(database), read, database, list_locations)


@functools.cache
def newest_schema() -> str:
    """Return the revision of the schema of this MLflow: the one that no other revision follows."""
    texts = [file.read_text() for file in _migrations().glob("*.py")]
    revisions, followed = (
        {str(name) for text in texts for name in re.findall(rf"^{key} = [\"'](\w+)", text, re.MULTILINE)}
        for key in ("revision", "down_revision")
    )
    (newest,) = revisions - followed
    return newest


def is_known(revision: str) -> bool:
    """Return whether this MLflow has a migration to a revision of the schema."""
    return any(_migrations().glob(f"{revision}_*.py"))


def _migrations() -> Path:
    found = importlib.util.find_spec("mlflow")  # to import it would take seconds
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "store" / "db_migrations" / "versions"


def folder_of(location: str) -> Path | None:
    """Return the local folder of an artifact location; None if it is remote, for example at s3://."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(urllib.request.url2pathname(parts.path) if parts.scheme else location)


def _connect(database: Path, mode: str) -> contextlib.closing[sqlite3.Connection]:
    uri = f"{database.as_uri()}?mode={mode}"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SEC, isolation_level=None))


def read(database: Path, query: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of a query, which is made without write access if no writer was killed.

    Raises:
        sqlite3.Error: The database is locked, or cannot be read.
    """
    try:
        with _connect(database, "ro") as connection:
            return query(connection)
    except sqlite3.OperationalError as error:
        if is_locked(error):
            raise
    # A writer was killed: the next connection rolls its transaction back, and needs write access for that.
    with _connect(database, "rw") as connection:
        return query(connection)


def _look(connection: sqlite3.Connection, database: Path) -> Look:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return Look((), ())
    if not tables >= _MLFLOW_TABLES:
        return Look(tuple(sorted(tables)), ())
    revisions = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
    return Look((), _old_roots(connection, database), next((str(revision) for (revision,) in revisions), None))


def _old_roots(connection: sqlite3.Connection, database: Path) -> tuple[str, ...]:
    """Return the artifact roots outside the store that were inside it when their experiments were created."""
    here = artifacts_dir(database).resolve()
    rows = connection.execute(
        "SELECT name, artifact_location, EXISTS (SELECT 1 FROM experiment_tags AS tags WHERE "
        "tags.experiment_id = experiments.experiment_id AND tags.key = ?) "
        "FROM experiments WHERE experiment_id IN (SELECT experiment_id FROM experiment_tags WHERE key = ?)",
        (OVERVIEW_TAG, KIND_TAG),
    )
    roots: dict[str, None] = {}
    for name, location, has_overview in rows:
        root, _, last = (location or "").rstrip("/").rpartition("/")
        folder = folder_of(root)
        if folder is None or folder.name != artifacts_dir(database).name or folder.resolve() == here:
            continue
        last = urllib.parse.unquote(last)
        # Our folders have the name of their experiment, which may have changed since; those of a server have its
        # number.
        if last == artifact_folder(name) or (has_overview and not last.isdigit()):
            roots[root] = None
    return tuple(roots)


def _repair(database: Path) -> int:
    new = artifacts_dir(database)
    with _connect(database, "rw") as connection:
        connection.execute("BEGIN IMMEDIATE")  # one transaction; closing the connection rolls it back
        num_changed = 0
        for old in _old_roots(connection, database):
            _require_moved(connection, old, new)
            for table, column in _known(connection, _COLUMNS):
                changed = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new.as_uri(), len(old) + 1, len(old) + 1, f"{old}/"),
                )
                num_changed += changed.rowcount
        connection.execute("COMMIT")
    return num_changed


def _require_moved(connection: sqlite3.Connection, old: str, new: Path) -> None:
    before = folder_of(old)
    assert before is not None
    left = 0
    example = None
    for table, column in _known(connection, _FOLDER_COLUMNS):
        rows = connection.execute(
            f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?", (len(old) + 1, f"{old}/")
        )
        for (location,) in rows:
            folder = folder_of(location)
            assert folder is not None
            for file in _walk(folder):
                if not (new / file.relative_to(before)).is_file():
                    left += 1
                    example = example or file
    if example is not None:
        raise UserError(
            f"{left:,} files of the store's runs are still in {before} and not in {new}, for example "
            f"{example.relative_to(before)}: move or copy that folder there first, then run the same command again"
        )


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def _known(connection: sqlite3.Connection, columns: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    def has(table: str, column: str) -> bool:
        return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))

    return [(table, column) for table, column in columns if has(table, column)]


@contextlib.contextmanager
def _reporting_errors(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_locked(error):
            raise UserError(describe_lock(str(database), error)) from error
        raise UserError(
            f"{database} cannot be used ({explain(error)}): repair it, or give tracking.uri= another path"
        ) from error


def describe_lock(what: str, error: Exception) -> str:
    """Return the message about a database that another program has locked for too long."""
    return (
        f"{what} is locked by another program ({explain(error)}): wait for that program or stop it, then run the "
        "same command again"
    )
