"""The location of the tracking store, and how a local SQLite store is created.

MLflow takes seconds to create a store, and two processes that do so at once interfere. So the store is created beside
its final path, under a lock, and moved there when it is complete, while TensorFlow is being imported.
"""

import http.client
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system import files, locks, paths
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.hints import CLUSTER_EXTRA, command
from mnist_pipeline.system.secrets import Address, authorize, hide
from mnist_pipeline.tracking import sqlite_store
from mnist_pipeline.tracking.database_errors import explain

_SQLITE = "sqlite:///"
_SQLITE_START = b"SQLite format 3\0"
_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")
SERVER_TIMEOUT_SEC = 8.0
_PROBE_TIMEOUT_SEC = 2.0
UI_VIEW = "?workflowType=machine_learning"
"""End of an address of the MLflow UI that selects the view for model training instead of generative AI."""


def resolve_uri(config: TrackingConfig) -> Address:
    """Return the tracking URI: `tracking.uri`, else `MLFLOW_TRACKING_URI`, else the SQLite store under `mlruns/`.

    Raises:
        ConfigError: It was copied from a place that shows it with stars.
    """
    uri = Address(config.uri or default_uri())
    if uri.is_masked:
        raise ConfigError(f"tracking URI {uri}: the stars stand for a secret that is not shown; give the whole URI")
    return uri


def log_in(uri: Address) -> str:
    """Return the URI for MLflow to connect to. User and password of a server go into MLflow's environment variables.

    So no URL that MLflow shows or stores contains them. Variables that the user has set stay if the URI has none.
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
        else:  # a user without a password is a token
            os.environ["MLFLOW_TRACKING_TOKEN"] = user
    return url


def sqlite_uri(database: Path) -> str:
    """Return the URI of a SQLite file; its path may have any characters."""
    return f"{_SQLITE}{urllib.parse.quote(str(database))}"


def is_server(uri: str) -> bool:
    """Return whether `uri` names a tracking server."""
    return Address(uri).is_server


def artifacts_dir(uri: str) -> Path | None:
    """Return the local folder for the artifacts of a store; None for a server, which decides that itself.

    It is beside a SQLite store, and in the home for any other database, where MLflow would use the current folder.
    """
    if is_server(uri):
        return None
    database = database_of(uri)
    return sqlite_store.artifacts_dir(database) if database else paths.mlruns_dir() / "artifacts"


def artifact_location(uri: str, given: str | None, *, experiment: str) -> str | None:
    """Return the URI of the folder for the artifacts of a new experiment; None lets a server decide.

    Args:
        uri: Of the store.
        given: `tracking.artifact_location`, a folder or a URI.
        experiment: Its name.
    """
    folder = sqlite_store.artifact_folder(experiment)
    if given is not None and "://" in given:
        return f"{given.rstrip('/')}/{folder}"
    root = paths.expand(given) if given is not None else artifacts_dir(uri)
    return (root / folder).as_uri() if root is not None else None


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for every other kind of store."""
    path, _, _ = uri.removeprefix(_SQLITE).partition("?")
    return Path(urllib.parse.unquote(path)).absolute() if uri.startswith(_SQLITE) else None


def begin(uri: str) -> None:
    """Check the store, and start to create a SQLite store that does not exist yet; return at once."""
    check(uri)
    database = database_of(uri)
    if database is not None and not database.exists():
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from mnist_pipeline.tracking import store; store.create({sqlite_uri(database)!r})",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is meant for the command, and the store is needed again
        )


def check(uri: str, *, to_write: bool = True, may_be_unsound: bool = False) -> None:
    """Refuse a store that cannot be used, without importing MLflow.

    Args:
        uri: Of the store.
        to_write: Whether a SQLite store that can only be read is refused.
        may_be_unsound: Whether a SQLite store is accepted that only `doctor` can use.

    Raises:
        ConfigError: MLflow cannot write to this kind of URI, its file is not a SQLite store, or it can only be read.
        UserError: The server or database does not answer; the SQLite store was moved, or stays locked.
    """
    _require_known(uri)
    database = database_of(uri)
    if is_server(uri):
        _require_server(uri)
    elif database is None:
        _require_database(uri)
    else:
        if "%" in str(database.parent):
            raise ConfigError(
                f"{database.parent}: MLflow cannot keep artifacts under a path with a % in it; give another"
            )
        if to_write:
            paths.require_writable(database.parent)
        if database.exists():
            _require_sqlite(database)
            if to_write and is_read_only(uri):
                raise ConfigError(f"{database} can only be read: ask its owner for write access, or give tracking.uri=")
            if not may_be_unsound:
                require_sound(uri)


def require_sound(uri: str) -> None:
    """Refuse a SQLite store that was moved or copied, or whose schema is not that of this MLflow.

    So nothing is written to the folders at the old path, and MLflow upgrades no schema without a copy.

    Raises:
        UserError: It was moved or copied, its schema is another, or it stays locked.
    """
    database = database_of(uri)
    if database is None or not database.exists():
        return
    found = sqlite_store.look(database)
    if found.is_newer:
        raise UserError(
            f"{database} has the schema {found.schema} of an MLflow newer than the installed one: upgrade the package "
            f"mlflow ({command('doctor')} says to which version), or give tracking.uri= another store"
        )
    if found.is_older:
        raise UserError(
            f"{database} has the schema {found.schema} of an older MLflow: run {doctor_command(database)}, which "
            "upgrades it and keeps a copy, then the same command again"
        )
    if found.old_roots:
        before = sqlite_store.folder_of(found.old_roots[0])
        assert before is not None
        raise UserError(
            f"the store was moved or copied from {before.parent} to {database.parent}, and its runs still point to the "
            f"old folder: run {doctor_command(database)}, then the same command again"
        )


def doctor_command(database: Path) -> str:
    """Return the command that repairs a SQLite store, as a shell reads it."""
    named = f"tracking.uri={sqlite_uri(database)}"
    is_default = database_of(default_uri()) == database
    return command("doctor", "--fix", *([] if is_default else [shlex.quote(named)]))


def is_read_only(uri: str) -> bool:
    """Return whether `uri` names a SQLite store that this user cannot write to."""
    database = database_of(uri)
    return database is not None and not all(os.access(path, os.W_OK) for path in (database, database.parent))


def is_up(uri: str) -> bool:
    """Return whether a tracking server answers, whatever it says of the user."""
    try:
        with urllib.request.urlopen(Address(uri).join("health").connection()[0], timeout=_PROBE_TIMEOUT_SEC):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False


def is_missing(uri: str) -> bool:
    """Return whether `uri` names a SQLite store that does not exist."""
    database = database_of(uri)
    return database is not None and not database.exists()


def create(uri: str) -> None:
    """Create the SQLite store of `uri` if it is missing; return when it exists.

    Safe in any number of processes at once and if killed: the store exists completely or not at all.
    """
    database = database_of(uri)
    if database is None or database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    # Hidden names that no file of the user has: the lock empties its file, and `NAME.lock` may be theirs.
    with locks.make(database.with_name(f".mnist-pipeline-{database.name}.lock")):
        if database.exists():
            return
        unfinished = database.with_name(f".mnist-pipeline-{database.name}.unfinished")
        unfinished.unlink(missing_ok=True)

        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(sqlite_uri(unfinished), (database.parent / "artifacts").as_uri())
        store.engine.dispose()
        unfinished.chmod(0o666 & ~files.read_umask())  # SQLite gives a group no right to write, whatever the umask
        files.move(unfinished, database)


def default_uri() -> str:
    """Return the address of the store where the configuration names none."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(paths.mlruns_dir() / "mlflow.db")


def _require_known(uri: str) -> None:
    expected = "expected sqlite:///PATH, http(s)://HOST:PORT or the URL of a PostgreSQL, MySQL or SQL Server database"
    scheme = uri.partition("://")[0]
    is_named = database_of(uri) is None or bool(uri.removeprefix(_SQLITE).partition("?")[0].strip(":/"))
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
        raise ConfigError(f"{database} is not a SQLite database: move it away, or give tracking.uri= another path")
    foreign = sqlite_store.look(database).foreign_tables
    if foreign:
        raise ConfigError(
            f"{database} is the database of another program, with tables such as {', '.join(foreign[:3])}: give "
            "tracking.uri= another path"
        )


def _require_database(uri: str) -> None:
    """Connect once: MLflow would try ten times, which takes 100 s, before it reports that nothing answers."""
    import sqlalchemy  # imported here, because the other stores do not need it

    url = Address(uri).reveal()
    has_timeout = url.startswith(("postgresql", "mysql"))
    try:
        engine = sqlalchemy.create_engine(
            url, connect_args={"connect_timeout": int(SERVER_TIMEOUT_SEC)} if has_timeout else {}
        )
        with engine.connect():
            pass
        engine.dispose()
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        if isinstance(error, ImportError):
            raise UserError(
                f"the database {uri}: its driver is not installed; for PostgreSQL {CLUSTER_EXTRA}"
            ) from error
        raise UserError(
            f"the database {uri} cannot be opened ({hide(explain(error))}): start it, or give tracking.uri= another"
        ) from error


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
                return  # it answers; MLflow's client sends the credentials
            raise UserError(
                f"the MLflow server at {uri} refuses these credentials ({error.code} {error.reason}): give "
                "tracking.uri= others"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"no MLflow server answers at {uri} ({reason}): start one, or give tracking.uri= another address"
        ) from error
