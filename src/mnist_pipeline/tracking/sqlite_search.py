"""Runs of a local store, searched by SQL.

MLflow's own search builds an object for every param, metric and tag, which takes a millisecond a run. Here a run is one
row and three dictionaries. The conditions are those of MLflow's filters, parsed by MLflow; what this does not know is
left to MLflow. The schema is that of the installed MLflow: `store.require_sound` refuses any other.
"""

import math
import sqlite3
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.search_utils import SearchUtils

from mnist_pipeline.tracking import sqlite_store

_CASE_SENSITIVE = "PRAGMA case_sensitive_like = true"  # as MLflow has it
_TABLES = {"tag": "tags", "parameter": "params", "metric": "latest_metrics"}
_COLUMNS = {
    **{"run_id": "run_uuid", "status": "status", "artifact_uri": "artifact_uri", "user_id": "user_id"},
    **{"start_time": "start_time", "end_time": "end_time"},
}
_COMPARISONS = {
    **{sign: f"{sign} ?" for sign in ("=", "!=", ">", ">=", "<", "<=", "LIKE")},
    **{"IS NULL": "", "IS NOT NULL": ""},
}


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it.

    Attributes:
        stage: MLflow's: active or deleted.
        started_ms: In milliseconds of Unix time.
        metrics: The last value of each.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    started_ms: int
    stage: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """A condition of SQL on the table `runs`, and the values of its question marks."""

    text: str
    values: tuple[Any, ...]


def translate(filter_string: str) -> list[Condition] | None:
    """Return the conditions of a filter in MLflow's language; None if it has one that only MLflow knows.

    Raises:
        MlflowException: MLflow does not understand the filter.
    """
    conditions = [_translate(one) for one in SearchUtils.parse_search_filter(filter_string)]
    return None if None in conditions else [one for one in conditions if one is not None]


def _translate(parsed: Mapping[str, Any]) -> Condition | None:
    kind, comparator = parsed["type"], parsed["comparator"].upper()
    value: Any = parsed.get("value")
    key = SearchUtils.translate_key_alias(parsed["key"])
    comparison = _COMPARISONS.get(comparator)
    if comparison is None:
        return None
    # As MLflow does before it searches: it raises if the comparator does not fit.
    checks = (SearchUtils.is_tag, SearchUtils.is_param, SearchUtils.is_metric)
    if kind in _TABLES and any(check(kind, comparator) for check in checks):
        is_number = kind == "metric" and value is not None
        return _in_table(_TABLES[kind], key, comparator, comparison, float(value) if is_number else value)
    if kind != "attribute":
        return None
    if not (
        SearchUtils.is_string_attribute(kind, key, comparator)
        or SearchUtils.is_numeric_attribute(kind, key, comparator)
    ):
        return None
    if key == "run_name":
        return _in_table("tags", MLFLOW_RUN_NAME, comparator, comparison, value)
    return Condition(f"{_COLUMNS[key]} {comparison}", (value,)) if key in _COLUMNS else None


def _in_table(table: str, key: str, comparator: str, comparison: str, value: object) -> Condition:
    keyed = f"SELECT run_uuid FROM {table} WHERE key = ?"
    match comparator:
        case "IS NULL":
            return Condition(f"run_uuid NOT IN ({keyed})", (key,))
        case "IS NOT NULL":
            return Condition(f"run_uuid IN ({keyed})", (key,))
    fits = f"value {comparison}"
    if table == "latest_metrics":  # NaN is kept as 0 with a flag, and differs from every number
        fits = f"({fits} OR is_nan)" if comparator == "!=" else f"{fits} AND NOT is_nan"
    return Condition(f"run_uuid IN ({keyed} AND {fits})", (key, value))


def choose(experiment_ids: Sequence[str], conditions: Sequence[Condition], *, stages: Sequence[str]) -> Condition:
    """Return one condition for the runs that fulfil all of `conditions`, which `translate` has returned.

    Args:
        experiment_ids: The experiments to search.
        conditions: Of the runs.
        stages: Of the runs: active, deleted, or both.
    """
    return Condition(
        " AND ".join(
            [
                f"experiment_id IN ({_marks(experiment_ids)}) AND lifecycle_stage IN ({_marks(stages)})",
                *(condition.text for condition in conditions),
            ]
        ),
        (*map(int, experiment_ids), *stages, *(value for condition in conditions for value in condition.values)),
    )


def count(database: Path, chosen: Condition) -> int:
    """Return how many runs `search` finds.

    Raises:
        sqlite3.Error: The database is locked or cannot be read.
    """

    def query(connection: sqlite3.Connection) -> int:
        connection.execute(_CASE_SENSITIVE)
        (number,) = connection.execute(f"SELECT COUNT(*) FROM runs WHERE {chosen.text}", chosen.values).fetchone()
        return int(number)

    return sqlite_store.read(database, query)


def search(database: Path, chosen: Condition, *, keys: Collection[str] | None = None) -> list[StoredRun]:
    """Return the runs, the newest first.

    Args:
        database: The file of the store.
        chosen: That `choose` has returned.
        keys: Of the params, metrics and tags to read; None: all.

    Raises:
        sqlite3.Error: The database is locked or cannot be read.
    """
    return sqlite_store.read(database, lambda connection: _search(connection, chosen, keys))


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _search(connection: sqlite3.Connection, chosen: Condition, keys: Collection[str] | None) -> list[StoredRun]:
    connection.execute(_CASE_SENSITIVE)
    connection.execute("BEGIN")  # the rows of a run, its params, metrics and tags are of one moment
    columns = "run_uuid, experiment_id, name, status, start_time, lifecycle_stage, artifact_uri"
    rows = connection.execute(
        f"SELECT {columns} FROM runs WHERE {chosen.text} ORDER BY start_time DESC, run_uuid", chosen.values
    )
    found = {
        row[0]: StoredRun(row[0], str(row[1]), row[2] or "", row[3], row[4] or 0, row[5], row[6] or "") for row in rows
    }
    if found:
        for run_id, key, value in _read(connection, "params", "value", chosen, keys):
            found[run_id].params[sys.intern(key)] = value
        for run_id, key, value in _read(connection, "tags", "value", chosen, keys):
            found[run_id].tags[sys.intern(key)] = value
        number = "CASE WHEN is_nan THEN NULL ELSE value END"
        for run_id, key, value in _read(connection, "latest_metrics", number, chosen, keys):
            found[run_id].metrics[sys.intern(key)] = math.nan if value is None else value
    return list(found.values())


def _read(
    connection: sqlite3.Connection, table: str, value: str, chosen: Condition, keys: Collection[str] | None
) -> Iterator[tuple[str, str, Any]]:
    query = (
        f"SELECT run_uuid, key, {value} FROM {table} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE {chosen.text})"
    )
    if keys is None:
        return connection.execute(query, chosen.values)
    return connection.execute(f"{query} AND key IN ({_marks(keys)})", (*chosen.values, *keys))
