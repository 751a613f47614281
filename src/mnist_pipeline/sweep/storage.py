"""The storage of a study: a journal file or a database. A file with any other content is refused and left untouched.

Optuna is not imported here, so that a wrong `sweep.storage` is reported at once.
"""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from pathlib import Path

from mnist_pipeline.system import files, paths
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.system.locks import hold
from mnist_pipeline.system.secrets import Address

_MAX_LINE_LENGTH = 1_000_000
_SQLITE_START = b"SQLite format 3\0"
_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")
_OPTUNA_TABLES = {"studies", "version_info"}


def journal_path(study: str) -> Path:
    """Return the default path of the journal of a study."""
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in study)
    return paths.mlruns_dir() / "optuna" / f"{safe}.journal"


def list_journals() -> list[Path]:
    """Return the journals that are at their default path, sorted."""
    return sorted((paths.mlruns_dir() / "optuna").glob("*.journal"))


def lock_of_study(study: str) -> Path:
    """Return the file of the lock that a command holds while it carries out a sweep."""
    return journal_path(study).with_suffix(".lock")


def lock_beside(storage: str | None, study: str) -> Path | None:
    """Return the file of the lock of a study whose file other homes may use too; None if it has no such file."""
    if storage is None:
        return None
    path = _find_sqlite(storage) if is_url(storage) else paths.expand(Address(storage).reveal())
    if path is None:
        return None
    path = Path(os.path.realpath(path))
    digest = hashlib.sha256(study.encode()).hexdigest()[:12]
    return path.with_name(f".{path.name}.mnist-pipeline-{digest}.lock")


def is_url(storage: str) -> bool:
    """Return whether `sweep.storage` is the URL of a database, not a journal file."""
    return "://" in storage


def check(storage: str) -> None:
    """Refuse a `sweep.storage` whose file holds anything but studies, without changing it.

    Raises:
        ConfigError: It holds anything else, or cannot be read.
        UserError: It is a damaged journal.
    """
    if is_url(storage):
        _require_ownable(storage)
        _check_sqlite(storage)
    else:
        check_journal(paths.expand(Address(storage).reveal()))


def check_journal(path: Path, *, is_ours: bool = False) -> None:
    """Refuse a file that is not an Optuna journal. A missing or empty file will become one.

    Args:
        path: Of the file.
        is_ours: Whether the path is our default, so that even its first line may be incomplete.

    Raises:
        ConfigError, UserError: As in `check`.
    """
    try:
        if not _exists(path):
            return
        with path.open("rb") as file:
            first = file.readline(_MAX_LINE_LENGTH)
            if first and not (_is_entry(first) or (is_ours and b"\n" not in first)):
                is_sqlite = first.startswith(_SQLITE_START)
                hint = f"give a SQLite database as sqlite:///{path}" if is_sqlite else "give another file"
                raise ConfigError(f"sweep.storage={path} is not an Optuna journal and was left untouched: {hint}")
            for number, line in enumerate(file, start=2):
                if line.endswith(b"\n") and not _is_entry(line):
                    how = f"run {command('doctor', '--fix')}, which cuts" if path in list_journals() else "cut"
                    raise UserError(
                        f"sweep.storage={path} is damaged in line {number} and was left untouched: {how} it before "
                        "that line"
                    )
    except OSError as error:
        raise ConfigError(f"sweep.storage={path} cannot be read ({error.strerror}): give another file") from error


def repair_journal(path: Path) -> str:
    """Cut a damaged journal before its first damaged line, and keep what it was beside it; say so.

    Raises:
        UserError: A command uses it, or it cannot be written.
    """
    with hold(path.with_suffix(".lock"), what=f"the study in {path}", wait=False, next_step=""):
        content = path.read_bytes()
        whole = 0
        for line in content.splitlines(keepends=True):
            if not _is_entry(line):
                break
            whole += len(line)
        if whole == len(content):
            return f"{path} is whole"
        kept = path.with_name(f"{path.name}.damaged-{hashlib.sha256(content).hexdigest()[:8]}")
        with files.output(kept) as unfinished:
            unfinished.write_bytes(content)
        with files.output(path) as unfinished:
            unfinished.write_bytes(content[:whole])
    return f"{path} ends before the damaged line; what it was is {kept.name}"


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, left by a power failure. The caller holds the journal's lock.

    Optuna would append the next line to it, and then could read neither.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _exists(path: Path) -> bool:
    """Return whether the file exists.

    Raises:
        ConfigError: It is not a regular file, and to open it could block or do harm.
    """
    if path.is_file():
        return True
    if path.exists():
        raise ConfigError(f"sweep.storage={path} is not a file: give the path of one")
    return False


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n") and isinstance(entry, dict) and "op_code" in entry


def _require_ownable(url: str) -> None:
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] != "sqlite" and scheme not in _POSTGRESQL:
        raise ConfigError(
            f"sweep.storage={url}: a study can be in a journal file, SQLite (sqlite:///PATH) or PostgreSQL "
            "(postgresql://HOST/NAME), where one command at a time can own it"
        )


def _find_sqlite(url: str) -> Path | None:
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", url)
    if found is None or found[1] == ":memory:":
        return None
    if found[1].startswith("file:"):
        raise ConfigError(f"sweep.storage={url}: expected sqlite:///PATH")
    return Path(found[1]).absolute()


def _check_sqlite(url: str) -> None:
    path = _find_sqlite(url)
    if path is None:
        return
    try:
        if not _exists(path):
            return
        tables = _list_tables(path)
    except (sqlite3.DatabaseError, OSError) as error:
        raise ConfigError(
            f"sweep.storage={url} cannot be read as a SQLite database ({error}) and was left untouched: give another"
        ) from error
    if tables and not tables & _OPTUNA_TABLES:
        raise ConfigError(
            f"sweep.storage={url} is the database of another program (table {min(tables)}) and was left untouched: "
            "give another file"
        )


def _list_tables(path: Path) -> set[str]:
    def read(how: str) -> set[str]:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    try:
        return read("mode=ro")
    except sqlite3.OperationalError:  # a killed command left a transaction that must be rolled back
        return read("immutable=1")
