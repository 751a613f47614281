"""Where MLflow keeps the runs, and how the local SQLite store comes to be.

MLflow takes seconds to create a store, and two processes that do it at once disturb each other. So it is created
beside its final place, under a lock, moved there when it is whole, and begun while TensorFlow is being imported.
"""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from mnist_pipeline import paths
from mnist_pipeline.config import TrackingConfig
from mnist_pipeline.errors import UserError

_SQLITE = "sqlite:///"
SERVER_TIMEOUT_SEC = 8.0
UI_VIEW = "?workflowType=machine_learning"
"""Ends an address of the MLflow UI so that it opens in the view for model training, not for generative AI."""


def resolve_uri(config: TrackingConfig) -> str:
    """Return the tracking URI: `tracking.uri`, else `MLFLOW_TRACKING_URI`, else the SQLite store under `mlruns/`."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{paths.mlruns_dir() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Return whether `uri` names a tracking server."""
    return uri.startswith(("http://", "https://"))


def artifacts_dir(uri: str) -> Path | None:
    """Return the folder beside a SQLite store that holds its artifacts; None for every other kind of store."""
    database = _database(uri)
    return database.parent / "artifacts" if database else None


def begin(uri: str) -> None:
    """Check a server, or begin to create a SQLite store that is not there yet, and return at once.

    Raises:
        UserError: The server does not answer, or the folder of the store cannot be written into.
    """
    if is_server(uri):
        _require_server(uri)
    database = _database(uri)
    if database is not None:
        paths.require_writable(database.parent)
        if not database.exists():
            subprocess.Popen(
                [sys.executable, "-c", f"from mnist_pipeline import store; store.create({uri!r})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the command, which may well be run again at once
            )


def create(uri: str) -> None:
    """Create the SQLite store of `uri` where it is missing; return when it is there.

    Safe in any number of processes at once, and killed at any moment: the store is there whole, or not at all.
    """
    database = _database(uri)
    if database is None or database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists():
            return
        unfinished = database.with_name(f"{database.name}.unfinished")
        unfinished.unlink(missing_ok=True)

        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(f"{_SQLITE}{unfinished}", (database.parent / "artifacts").as_uri())
        store.engine.dispose()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


def _database(uri: str) -> Path | None:
    path = uri.removeprefix(_SQLITE)
    return Path(path).absolute() if path != uri and path and ":memory:" not in path else None


def _require_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_TIMEOUT_SEC):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
            return  # it answers; MLflow's client brings the credentials
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"no MLflow server answers at {uri} ({reason}): start one, or give tracking.uri= another address"
        ) from error
