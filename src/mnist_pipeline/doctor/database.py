"""The database itself: its schema, and whether it was moved. Without MLflow's store, which refuses both."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mnist_pipeline.doctor.finding import Finding, Remedy
from mnist_pipeline.system import files
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import sqlite_store, store
from mnist_pipeline.tracking.record import Artifact


def find(uri: str) -> Iterator[Finding]:
    """Yield what has to be done before MLflow can open the store: nothing else can be examined until then."""
    database = store.database_of(uri)
    if database is None:
        return
    found = sqlite_store.look(database)
    if found.is_newer:
        wanted = _find_newest_mlflow(database)
        step = f"upgrade the package mlflow to {wanted}" if wanted else "upgrade the package mlflow"
        yield Finding(Remedy.person, f"{database} has the schema {found.schema} of a newer MLflow: {step}")
        return
    if found.is_older:
        what = f"{database} has the schema {found.schema} of an older MLflow: upgrade it, and keep a copy of it"
        yield Finding(Remedy.fix, what, partial(_upgrade, database, str(found.schema)))
    if found.old_roots:
        what = f"{database} was moved or copied, and its runs point to {', '.join(found.old_roots)}: update the paths"
        yield Finding(Remedy.fix, what, partial(_follow, database))


def _follow(database: Path) -> str:
    num_fixed = sqlite_store.repair(database)
    return f"{num_fixed:,} artifact paths of {database} now lead to {sqlite_store.artifacts_dir(database)}"


def _upgrade(database: Path, schema: str) -> str:
    """Upgrade a copy, and put it into the place of the database: a kill leaves one or the other, each whole."""
    if any(database.with_name(f"{database.name}{end}").exists() for end in ("-wal", "-journal")):
        raise UserError(
            f"{database} is in use, or a writer was killed: end what uses it, then run the same command again"
        )
    kept = database.with_name(f"{database.name}.schema-{schema}")
    try:
        with files.whole(database) as unfinished:
            _copy(database, unfinished)
            uri = store.sqlite_uri(unfinished)
            command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = " ".join(done.stderr.strip().splitlines()[-1:])
                raise UserError(f"{database} cannot be upgraded ({said}): it is as it was")
            with files.whole(kept) as copy:
                _copy(database, copy)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{database} cannot be upgraded ({error}): it is as it was") from error
    return f"{database} has the schema of this MLflow; what it was is {kept.name}"


def _copy(database: Path, copy: Path) -> None:
    source, target = sqlite3.connect(database), sqlite3.connect(copy)
    try:
        source.backup(target)  # with what a writer has not put into the file itself yet
    finally:
        source.close()
        target.close()


def _find_newest_mlflow(database: Path) -> str | None:
    """Return the version of MLflow that the newest run was tracked with, by its own files."""
    for location in sqlite_store.list_newest_runs(database):
        folder = sqlite_store.folder_of(location)
        if folder is None:
            continue
        try:
            return str(json.loads((folder / Artifact.VERSIONS).read_text())["mlflow"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
