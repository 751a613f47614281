"""The names in a SQLite store, for the completion of the shell: read without MLflow, which takes seconds to import."""

import contextlib
import sqlite3
from pathlib import Path

_MOST_RUNS = 500
_RUNS = """
    SELECT runs.name FROM runs LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'kind'
    WHERE runs.lifecycle_stage = 'active' AND COALESCE(tags.value, '') != 'promotion'
    ORDER BY runs.start_time DESC LIMIT ?
"""
_STUDIES = "SELECT DISTINCT value FROM tags WHERE key = 'study' ORDER BY value"
_ALIASES = "SELECT alias, name FROM registered_model_aliases ORDER BY name, alias"


def list_names(database: Path) -> list[str]:
    """Return the aliases, the studies and the newest runs; nothing where they cannot be read at once."""
    if not database.exists():
        return []
    found: list[str] = []
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection,
    ):
        for alias, model in connection.execute(_ALIASES):
            found += [alias, f"{model}@{alias}"]
        found += [study for (study,) in connection.execute(_STUDIES)]
        found += [name for (name,) in connection.execute(_RUNS, (_MOST_RUNS,))]
    return list(dict.fromkeys(found))
