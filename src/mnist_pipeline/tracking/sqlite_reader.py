"""A local store, read by SQL.

To import MLflow takes two seconds, and its own search builds an object for every param, metric and tag, which takes a
millisecond a run. Here a run is one row and three dictionaries. The schema is that of the installed MLflow:
`store.require_sound` refuses any other. Of a condition that a user typed, MLflow parses the text; what this does not
know is left to MLflow.
"""

import math
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mnist_pipeline.tracking import sqlite_store
from mnist_pipeline.tracking.mlflow_reader import MlflowReader
from mnist_pipeline.tracking.reading import (
    Condition,
    StoredExperiment,
    StoredModel,
    StoredPoint,
    StoredRun,
    StoredVersion,
)
from mnist_pipeline.tracking.retries import RetryingClient

_TABLES = {"tag": "tags", "parameter": "params", "metric": "latest_metrics"}
_COLUMNS = {
    **{"run_id": "run_uuid", "status": "status", "artifact_uri": "artifact_uri", "user_id": "user_id"},
    **{"start_time": "start_time", "end_time": "end_time"},
}
_COMPARISONS = {
    **{sign: f"{sign} ?" for sign in ("=", "!=", ">", ">=", "<", "<=", "LIKE")},
    **{"IS NULL": "", "IS NOT NULL": ""},
}
_NAME_TAG = "mlflow.runName"
_NUMBER = "CASE WHEN is_nan THEN NULL ELSE value END"
_IS_CHOSEN = "run_uuid IN (SELECT run_uuid FROM temp.chosen)"
_READY = 2  # MLflow's number
_DELETED_VERSION = "Deleted_Internal"
_IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of what MLflow keeps beside the registered models, and is none."""

T = TypeVar("T")


@dataclass(frozen=True)
class Clause:
    """A condition of SQL on the table `runs`, and the values of its question marks."""

    text: str
    values: tuple[Any, ...]


class SqliteReader:
    """Reads a local store, in which there is nothing until its file exists.

    Args:
        database: Its file.
        client: Its client, for what MLflow alone knows; its calls are retried, and threads take turns.
    """

    def __init__(self, database: Path, client: RetryingClient) -> None:
        self._database = database
        self._client = client
        self._mlflow = MlflowReader(client)

    def find_run(self, run_id: str) -> StoredRun | None:
        """Return the run, even if it was deleted."""
        return next(iter(self._read_runs(Clause("run_uuid = ?", (run_id,)), None)), None)

    def search(
        self,
        experiment_ids: Sequence[str],
        conditions: Sequence[Condition | str],
        *,
        stages: Sequence[str],
        keys: Collection[str] | None = None,
    ) -> Iterator[StoredRun]:
        """Yield the runs that fulfil all conditions, as `Reader.search` does."""
        translated = translate(conditions)
        if translated is None:
            yield from self._mlflow.search(experiment_ids, conditions, stages=stages)
        else:
            yield from self._read_runs(_choose(experiment_ids, translated, stages=stages), keys)

    def count(self, experiment_ids: Sequence[str], conditions: Sequence[Condition], *, stages: Sequence[str]) -> int:
        """Return how many runs `search` finds."""
        translated = translate(conditions)
        assert translated is not None
        chosen = _choose(experiment_ids, translated, stages=stages)
        return sum(
            number for (number,) in self._query(f"SELECT COUNT(*) FROM runs WHERE {chosen.text}", *chosen.values)
        )

    def read_points(self, run_id: str, metric: str) -> list[StoredPoint]:
        """Return all values of a metric."""
        query = (
            f"SELECT {_NUMBER}, step, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY timestamp, step"
        )
        return [StoredPoint(_number(value), *rest) for value, *rest in self._query(query, run_id, metric)]

    def list_experiments(self) -> list[StoredExperiment]:
        """Return all experiments, the deleted ones too."""
        tags: dict[int, dict[str, str]] = {}
        for number, key, value in self._query("SELECT experiment_id, key, value FROM experiment_tags"):
            tags.setdefault(number, {})[key] = value
        rows = self._query("SELECT experiment_id, name, lifecycle_stage FROM experiments")
        return [StoredExperiment(str(number), name, stage, tags.get(number, {})) for number, name, stage in rows]

    def list_models(self, run_id: str, *, experiment_id: str) -> list[StoredModel]:
        """Return the models that a run logged, the newest first."""
        return self._read_models("source_run_id = ? ORDER BY creation_timestamp_ms DESC, model_id", run_id)

    def find_model(self, model_id: str) -> StoredModel | None:
        """Return the logged model with this id, if it was not deleted."""
        return next(iter(self._read_models("model_id = ?", model_id)), None)

    def list_registered(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        prompts = "SELECT name FROM registered_model_tags WHERE key = ? AND value = 'true'"
        query = f"SELECT name FROM registered_models WHERE name NOT IN ({prompts}) ORDER BY name"
        return [name for (name,) in self._query(query, _IS_PROMPT)]

    def read_aliases(self, name: str) -> dict[str, int] | None:
        """Return the versions that the aliases of a registered model name; None if there is no such model."""
        if not self._query("SELECT 1 FROM registered_models WHERE name = ?", name):
            return None
        return dict(self._query("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name))

    def list_versions(self, *, name: str | None = None, run_id: str | None = None) -> list[StoredVersion]:
        """Return the versions of the registered model `name`, or those that came from the run, in their order."""
        column, value = ("name", name) if name is not None else ("run_id", run_id)
        columns = "name, version, run_id, source, description"
        where = f"{column} = ? AND current_stage != ? ORDER BY name, version"
        rows = self._query(f"SELECT {columns} FROM model_versions WHERE {where}", value, _DELETED_VERSION)
        return [
            StoredVersion(name, version, run_id or "", source or "", description or "")
            for name, version, run_id, source, description in rows
        ]

    def _read_models(self, condition: str, value: str) -> list[StoredModel]:
        query = "SELECT model_id, artifact_location, status FROM logged_models WHERE lifecycle_stage = 'active' AND "
        return [StoredModel(row[0], row[1], row[2] == _READY) for row in self._query(f"{query}{condition}", value)]

    def _read_runs(self, chosen: Clause, keys: Collection[str] | None) -> list[StoredRun]:
        return self._read(lambda connection: _read_runs(connection, chosen, keys))

    def _query(self, query: str, *values: Any) -> list[Any]:
        return self._read(lambda connection: connection.execute(query, values).fetchall())

    def _read(self, query: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
        def case_sensitively(connection: sqlite3.Connection) -> list[T]:
            connection.execute("PRAGMA case_sensitive_like = true")  # as MLflow has it
            return query(connection)

        def once() -> list[T]:
            return sqlite_store.read(self._database, case_sensitively) if self._database.exists() else []

        found: list[T] = self._client.carry_out(once)
        return found


def translate(conditions: Sequence[Condition | str]) -> list[Clause] | None:
    """Return the conditions in SQL; None if a user typed one that only MLflow knows.

    Raises:
        MlflowException: MLflow does not understand what the user typed.
    """
    known = [
        one
        for condition in conditions
        for one in ([condition] if isinstance(condition, Condition) else MlflowReader.parse(condition))
    ]
    translated = [_translate(one) for one in known if one is not None]
    return None if None in known or None in translated else [one for one in translated if one is not None]


def _translate(condition: Condition) -> Clause | None:
    comparison = _COMPARISONS.get(condition.comparator)
    if comparison is None:
        return None
    if condition.kind == "attribute" and condition.key == "run_name":
        return _in_table("tags", _NAME_TAG, condition.comparator, comparison, condition.value)
    if condition.kind == "attribute":
        column = _COLUMNS.get(condition.key)
        return None if column is None else Clause(f"{column} {comparison}", (condition.value,))
    return _in_table(_TABLES[condition.kind], condition.key, condition.comparator, comparison, condition.value)


def _in_table(table: str, key: str, comparator: str, comparison: str, value: object) -> Clause:
    keyed = f"SELECT run_uuid FROM {table} WHERE key = ?"
    match comparator:
        case "IS NULL":
            return Clause(f"run_uuid NOT IN ({keyed})", (key,))
        case "IS NOT NULL":
            return Clause(f"run_uuid IN ({keyed})", (key,))
    fits = f"value {comparison}"
    if table == "latest_metrics":  # NaN is kept as 0 with a flag, and differs from every number
        fits = f"({fits} OR is_nan)" if comparator == "!=" else f"{fits} AND NOT is_nan"
    return Clause(f"run_uuid IN ({keyed} AND {fits})", (key, value))


def _choose(experiment_ids: Sequence[str], conditions: Sequence[Clause], *, stages: Sequence[str]) -> Clause:
    """Return one condition for the runs that fulfil all of `conditions`."""
    where = f"experiment_id IN ({_marks(experiment_ids)}) AND lifecycle_stage IN ({_marks(stages)})"
    return Clause(
        " AND ".join([where, *(condition.text for condition in conditions)]),
        (*map(int, experiment_ids), *stages, *(value for condition in conditions for value in condition.values)),
    )


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _read_runs(connection: sqlite3.Connection, chosen: Clause, keys: Collection[str] | None) -> list[StoredRun]:
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("BEGIN")  # the rows of a run, its params, metrics and tags are of one moment
    # Each of the queries below would look for the runs again.
    connection.execute(f"CREATE TEMP TABLE chosen AS SELECT run_uuid FROM runs WHERE {chosen.text}", chosen.values)
    columns = "run_uuid, experiment_id, name, status, start_time, lifecycle_stage, artifact_uri"
    rows = connection.execute(f"SELECT {columns} FROM runs WHERE {_IS_CHOSEN} ORDER BY start_time DESC, run_uuid")
    found = {
        row[0]: StoredRun(row[0], str(row[1]), row[2] or "", row[3], row[4] or 0, row[5], row[6] or "") for row in rows
    }
    if found:
        for run_id, key, value in _read_values(connection, "params", "value", keys):
            found[run_id].params[sys.intern(key)] = value
        for run_id, key, value in _read_values(connection, "tags", "value", keys):
            found[run_id].tags[sys.intern(key)] = value
        for run_id, key, value in _read_values(connection, "latest_metrics", _NUMBER, keys):
            found[run_id].metrics[sys.intern(key)] = _number(value)
    return list(found.values())


def _read_values(
    connection: sqlite3.Connection, table: str, value: str, keys: Collection[str] | None
) -> Iterator[tuple[str, str, Any]]:
    query = f"SELECT run_uuid, key, {value} FROM {table} WHERE {_IS_CHOSEN}"
    if keys is None:
        return connection.execute(query)
    return connection.execute(f"{query} AND key IN ({_marks(keys)})", tuple(keys))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
