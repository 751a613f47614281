"""Where MLflow keeps the runs, and how the local SQLite store comes to be.

MLflow takes seconds to create a store, and two processes that do it at once disturb each other. So it is created
beside its final place, under a lock, moved there when it is whole, and begun while TensorFlow is being imported.
"""

import http.client
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from filelock import FileLock

from mnist_pipeline import paths
from mnist_pipeline.address import Address, authorize
from mnist_pipeline.config import TrackingConfig
from mnist_pipeline.errors import ConfigError, UserError

_SQLITE = "sqlite:///"
_SQLITE_START = b"SQLite format 3\0"
_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")
SERVER_TIMEOUT_SEC = 8.0
UI_VIEW = "?workflowType=machine_learning"
"""Ends an address of the MLflow UI so that it opens in the view for model training, not for generative AI."""

OVERVIEW = "overview"
"""Key of the view of an experiment that every experiment gets: which columns the UI shows of its runs."""


def resolve_uri(config: TrackingConfig) -> Address:
    """Return the tracking URI: `tracking.uri`, else `MLFLOW_TRACKING_URI`, else the SQLite store under `mlruns/`.

    Raises:
        ConfigError: It was copied from where it is shown with stars.
    """
    uri = Address(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(paths.mlruns_dir() / "mlflow.db"))
    if uri.is_masked:
        raise ConfigError(f"tracking URI {uri}: the stars stand for a secret that is not shown; give the whole URI")
    return uri


def log_in(uri: Address) -> str:
    """Return the URI for MLflow to connect to. User and password of a server go to MLflow by its own variables.

    So they are in no URL that MLflow shows or keeps. Those that the user has set stay, where the URI has none.
    """
    if not uri.is_server:
        return uri.reveal()
    url, credentials = uri.connection()
    if credentials is not None:
        user, password = credentials
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
            os.environ.pop(name, None)
        if password:
            os.environ |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        else:  # a user alone is a token
            os.environ["MLFLOW_TRACKING_TOKEN"] = user
    return url


def sqlite_uri(database: Path) -> str:
    """Return the URI of a SQLite file, whatever signs its path has."""
    return f"{_SQLITE}{urllib.parse.quote(str(database))}"


def is_server(uri: str) -> bool:
    """Return whether `uri` names a tracking server."""
    return Address(uri).is_server


def artifacts_dir(uri: str) -> Path | None:
    """Return the folder beside a SQLite store that holds its artifacts; None for every other kind of store."""
    database = _database(uri)
    return database.parent / "artifacts" if database else None


def begin(uri: str) -> None:
    """Check the store as `check` does, and begin to create a SQLite store that is not there yet; return at once."""
    check(uri)
    database = _database(uri)
    if database is not None and not database.exists():
        subprocess.Popen(
            [sys.executable, "-c", f"from mnist_pipeline import store; store.create({sqlite_uri(database)!r})"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command, which may well be run again at once
        )


def check(uri: str) -> None:
    """Refuse a store that cannot be written to, without opening it.

    Raises:
        ConfigError: The URI is of no kind that MLflow can write to, its file is no SQLite store, or the folder of the
            store cannot be written into.
        UserError: The server does not answer.
    """
    _require_known(uri)
    if is_server(uri):
        _require_server(uri)
    database = _database(uri)
    if database is not None:
        if "%" in str(database.parent):
            raise ConfigError(
                f"{database.parent}: MLflow cannot keep artifacts under a path with a % in it; give another"
            )
        paths.require_writable(database.parent)
        if database.exists():
            _require_sqlite(database)


def is_missing(uri: str) -> bool:
    """Return whether `uri` names a SQLite store that is not there."""
    database = _database(uri)
    return database is not None and not database.exists()


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

        store = SqlAlchemyStore(sqlite_uri(unfinished), (database.parent / "artifacts").as_uri())
        store.engine.dispose()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


def _database(uri: str) -> Path | None:
    path, _, _ = uri.removeprefix(_SQLITE).partition("?")
    return Path(urllib.parse.unquote(path)).absolute() if uri.startswith(_SQLITE) else None


def _require_known(uri: str) -> None:
    expected = "expected sqlite:///PATH, http(s)://HOST:PORT or the URL of a PostgreSQL, MySQL or SQL Server database"
    scheme = uri.partition("://")[0]
    is_named = _database(uri) is None or bool(uri.removeprefix(_SQLITE).partition("?")[0].strip(":/"))
    if "://" not in uri or not (scheme in ("sqlite", *_SERVERS) or scheme.partition("+")[0] in _DATABASES):
        raise ConfigError(f"tracking URI {uri}: {expected}")
    if scheme == "sqlite" and (not uri.startswith(_SQLITE) or not is_named or ":memory:" in uri):
        raise ConfigError(f"tracking URI {uri}: a SQLite store needs a file, sqlite:///PATH")


def _require_sqlite(database: Path) -> None:
    try:
        with database.open("rb") as file:
            start = file.read(len(_SQLITE_START))
    except OSError as error:
        raise ConfigError(f"{database} cannot be read ({error.strerror}): give tracking.uri= another path") from error
    if start not in (_SQLITE_START, b""):
        raise ConfigError(f"{database} is no SQLite database: move it away, or give tracking.uri= another path")


def _require_server(uri: str) -> None:
    url, credentials = Address(uri).join("health").connection()
    try:
        request = urllib.request.Request(url)
        if credentials is not None:
            request.add_unredirected_header("Authorization", authorize(*credentials))
        with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_SEC):
            pass
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
            if credentials is None:
                return  # it answers; MLflow's client brings the credentials
            raise UserError(
                f"the MLflow server at {uri} refuses these credentials ({error.code} {error.reason}): give "
                "tracking.uri= others"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"no MLflow server answers at {uri} ({reason}): start one, or give tracking.uri= another address"
        ) from error
