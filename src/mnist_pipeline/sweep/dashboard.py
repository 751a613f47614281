"""Optuna's dashboard over a storage, as an application in this process.

The program `optuna-dashboard` would answer requests for any host, and show the storage's password in the process list.
"""

import os
import warnings
from pathlib import Path

import optuna
import optuna_dashboard
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from starlette.types import ASGIApp

from mnist_pipeline.sweep.backend import open_storage
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import Address, hide


def make_app(storage: str, study: str | None) -> ASGIApp:
    """Return the dashboard over all studies of a storage; it creates nothing.

    Args:
        storage: Path of a journal file or URL of a database, as `sweep.storage`.
        study: Name of a study that the storage must hold.

    Raises:
        UserError: The storage cannot be opened, or does not hold `study`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about starlette's deprecated adapter, and experimental features of Optuna, which is pinned
        from starlette.middleware.wsgi import WSGIMiddleware

        try:
            opened = _open(storage)
            names = sorted(found.study_name for found in opened.get_all_studies())
            app: ASGIApp = WSGIMiddleware(optuna_dashboard.wsgi(opened))
        except UserError:
            raise
        except Exception as error:  # Optuna lets through whatever its storage raises
            reason = hide(str(error.__cause__ or error)).partition("\n")[0][:300]
            raise UserError(
                f"sweep.storage={storage} cannot be opened ({type(error).__name__}: {reason}): "
                "repair it, or give another"
            ) from error
    # Names that share a journal file count as the same, because users may know only the file name.
    if study is not None and journal_path(study) not in map(journal_path, names):
        raise UserError(
            f"sweep.study={study} is not in {storage}: "
            + (f"expected {' or '.join(names)}" if names else "it holds no study; give another sweep.storage")
        )
    return app


def _open(storage: str) -> BaseStorage:
    if "://" not in storage:
        return open_storage(storage, "")
    whole = Address(storage).reveal()
    url = sqlalchemy.make_url(whole)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise UserError(f"sweep.storage={storage}: there is no file {os.path.abspath(url.database)}")  # noqa: PTH100
    # A database without Optuna's tables belongs to another program: create none in it.
    return RDBStorage(whole, skip_compatibility_check=True, skip_table_creation=True)
