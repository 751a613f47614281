"""Who carries out a study: one command at a time, wherever the study is stored.

A study in a file is owned by a lock of the operating system beside the file. One in PostgreSQL is owned by an advisory
lock on a connection of its own: the server releases it when its owner dies, and some 25 s after its machine is cut off.
"""

import contextlib
import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy

from mnist_pipeline.sweep import storage as storages
from mnist_pipeline.sweep.backend import CONNECTION, opening
from mnist_pipeline.system import locks
from mnist_pipeline.system.errors import TakenOverError
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking.absence import is_away

# By default the server keeps the lock of a machine that was cut off for two hours.
_SERVER_SETTINGS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
_WAIT_PAUSE_SEC = 1.0
_PROGRAM = "mnist-pipeline"
_MAX_NAME_LENGTH = 63  # of a session in PostgreSQL, which cuts what is longer

_HOLDER = sqlalchemy.text("""
    SELECT holder.application_name FROM pg_locks AS held JOIN pg_stat_activity AS holder USING (pid)
    WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
      AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((held.classid::bigint << 32) | held.objid::bigint) = :key
""")
_TAKE = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)")

NEXT_STEP = "or give sweep.study another name"


class Owner:
    """The owner of a study in a file: the lock of an operating system is not lost while its process lives.

    Attributes:
        on_regained: Called after a lost lock was taken again; raises if another command has had it meanwhile.
    """

    def __init__(self) -> None:
        self.on_regained: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Require that this command still owns the study.

        Raises:
            TakenOverError: Another command does, or may.
        """


class DatabaseOwner(Owner):
    """The owner of a study in PostgreSQL. Its connection shows who that is, in `pg_stat_activity`.

    Args:
        url: Of the database, with its secrets.
        what: The study, for messages.
        key: Of the advisory lock, 64 bits with a sign.
        patience: With a database that is away.
    """

    def __init__(self, url: str, *, what: str, key: int, patience: Patience) -> None:
        super().__init__()
        self._what = what
        self._key = key
        self._patience = patience
        self._lock = threading.Lock()
        self._name = f"{_PROGRAM} {os.getpid()} {time.time():.0f} {platform.node() or 'unknown'}"[:_MAX_NAME_LENGTH]
        self._engine = sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.NullPool,
            connect_args={**CONNECTION, "application_name": self._name, "options": _SERVER_SETTINGS},
            isolation_level="AUTOCOMMIT",
        )
        self._connection: Any = None

    def take(self) -> str | None:
        """Take the lock; return what its holder is called if there is another one."""
        self.release()
        self._connection = self._engine.connect()
        if self._connection.scalar(_TAKE, {"key": self._key}):
            return None
        name = self._connection.scalar(_HOLDER, {"key": self._key}) or ""
        self.release()
        return str(name)

    def check(self) -> None:
        """Look at the lock's connection; if it is lost, take the lock again."""
        with self._lock:
            try:
                self._connection.execute(sqlalchemy.text("SELECT 1"))
            except Exception as error:
                if not is_away(error):
                    raise
            else:
                return
            try:
                self._patience.call(self._take_again)
            except TakenOverError:
                raise
            except Exception as error:
                if not is_away(error):
                    raise
                raise stayed_away(self._what, self._patience) from error
            self.on_regained()

    def _take_again(self) -> None:
        """Take the lock again, or wait for the server to notice that the old connection is lost."""
        holder = self.take()
        if holder is None:
            return
        if holder == self._name:
            raise ConnectionError("the server has not noticed yet that the old connection is lost")
        raise taken_over(self._what, _describe(holder))

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._connection is not None:
            with contextlib.suppress(Exception):  # the connection may be lost
                self._connection.close()
            self._connection = None


def stayed_away(what: str, patience: Patience) -> TakenOverError:
    """Return the error of a command that does not know whether its study is still its own."""
    return TakenOverError(
        f"the database of {what} does not answer for {patience.limit_sec:.0f} s ({patience.key}), so another command "
        "may have taken it over: run the same command again when the database is back, which resumes"
    )


def taken_over(what: str, holder: str) -> TakenOverError:
    """Return the error of a command that has lost its study to another one."""
    return TakenOverError(
        f"{what} was taken over by {holder} while this command could not reach the database: this one stops, and "
        "leaves the study and its runs to the other"
    )


@contextlib.contextmanager
def own(
    storage: Address | None, study: str, *, wait: bool, on_wait: Callable[[], None], patience: Patience
) -> Iterator[Owner]:
    """Own a study; the same study under another address of the same file or database is the same.

    Args:
        storage: As `sweep.storage`.
        study: Its name.
        wait: Wait for another owner instead of failing.
        on_wait: Called every second of the wait; may raise to end it.
        patience: With a database that is away.

    Raises:
        UserError: Another command owns it and `wait` is false, or the lock cannot be taken.
    """
    what = f"the study {study}"
    with contextlib.ExitStack() as held:
        # The one under the home protects the checkpoints there, and is what `doctor` looks at.
        for path in (storages.lock_of_study(study), storages.lock_beside(storage, study)):
            if path is not None:
                held.enter_context(locks.hold(path, what=what, wait=wait, next_step=NEXT_STEP, on_wait=on_wait))
        if storage is None or not storage.startswith("postgresql"):
            yield Owner()
            return
        with opening(storage):
            owner = DatabaseOwner(storage.reveal(), what=what, key=_key(study), patience=patience)
            held.callback(owner.release)
            while (holder := owner.take()) is not None:
                if not wait:
                    raise locks.in_use(what, _describe(holder), NEXT_STEP)
                on_wait()
                time.sleep(_WAIT_PAUSE_SEC)
        yield owner


def _key(study: str) -> int:
    digest = hashlib.sha256(f"{_PROGRAM} study {study}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _describe(name: str) -> str:
    words = name.split(" ", 3)
    if len(words) == 4 and words[0] == _PROGRAM and words[2].isdigit():
        return locks.describe_process(words[1], words[3], float(words[2]))
    return name or "another command"
