"""An open MLflow store: its client, its addresses, its experiments, and its failures, reported in one line."""

import contextlib
import errno
import functools
import getpass
import importlib.metadata
import logging
import platform
import re
import shlex
import threading
from collections.abc import Collection, Iterator
from typing import Any

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.system.secrets import Address, hide
from mnist_pipeline.tracking import runs_view, sqlite_store, store
from mnist_pipeline.tracking.absence import is_of_store
from mnist_pipeline.tracking.database_errors import explain, is_locked
from mnist_pipeline.tracking.mlflow_reader import MlflowReader
from mnist_pipeline.tracking.reading import ACTIVE, Reader
from mnist_pipeline.tracking.record import Tag
from mnist_pipeline.tracking.retries import RetryingClient, retry
from mnist_pipeline.tracking.sqlite_reader import SqliteReader

# Without this tag the UI opens the experiment in its view for generative AI.
_KIND_TAGS = {sqlite_store.KIND_TAG: "custom_model_development"}
_OVERVIEW_TAGS = {
    runs_view.TAG: runs_view.describe(()),
    Tag.DESCRIPTION: (
        "Runs by their tag `kind`: `train` (one training), `sweep` (a study) with its children `trial`, `confirm` and "
        "`final`. Names say data, model, what differs from the defaults, epochs and seed. The tag `alias` marks the "
        "runs of champion and challenger. In the terminal: `mnist-pipeline compare`, `diff` and `report`."
    ),
}


class MlflowStore:
    """The MLflow store of a configuration. A local one is created when it is first written to, if it is missing.

    What is local is read without MLflow, which takes two seconds to import.

    Args:
        config: Names it.
        patience: With a server that is away; by default its absence is an error.

    Attributes:
        client: MLflow's, with retries for conflicts with other programs; it writes.
        reader: Reads.
        connected: The URI for MLflow to connect to.

    Raises:
        UserError: The store cannot be opened, or was moved.
    """

    def __init__(self, config: TrackingConfig, patience: Patience | None = None) -> None:
        self.uri = store.resolve_uri(config)
        database = store.database_of(self.uri)
        self._artifact_location = config.artifact_location
        store.require_sound(self.uri)
        self.connected = store.log_in(self.uri)
        self._mlflow_client: Any = None
        self._connecting = threading.Lock()
        # Threads that meet in SQLite sleep before they try again, each for longer than the other's call takes.
        takes_turns = database is not None
        self.client = RetryingClient(self._connect, what=self.uri, patience=patience, takes_turns=takes_turns)
        self.reader: Reader = MlflowReader(self.client) if database is None else SqliteReader(database, self.client)
        if database is None:
            self._connect()

    def _connect(self) -> Any:
        with self._connecting:
            if self._mlflow_client is None:
                with self._opening():
                    import mlflow

                    logging.getLogger("mlflow").setLevel(logging.ERROR)
                    # It logs a traceback of every error that it raises.
                    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
                    store.create(self.uri)
                    mlflow.set_tracking_uri(self.connected)
                    self._mlflow_client = retry(self.uri, mlflow.MlflowClient, self.connected)
        return self._mlflow_client

    @contextlib.contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Report an error of the store in one line.

        Raises:
            UserError: The store fails.
        """
        try:
            yield
        except Exception as error:
            is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not is_full and not is_of_store(error):
                raise
            if is_locked(error):
                raise UserError(self._describe_lock(error)) from error
            raise UserError(
                f"the tracking store {self.uri} fails ({hide(explain(error))}): fix that and run the same command "
                "again, which resumes where this one stopped"
            ) from error

    def address(self, page: str) -> str:
        """Return the address of a page of the MLflow UI; for a local store, the address that `make ui` uses."""
        return f"{self._ui}/#/{page}{store.UI_VIEW}"

    @functools.cached_property
    def _ui(self) -> str:
        is_server = store.is_server(self.uri)
        return Address(self.uri.connection()[0]).rstrip("/") if is_server else "http://127.0.0.1:5000"

    def run_address(self, experiment_id: str, run_id: str) -> str:
        """Return the address of a run's page."""
        return self.address(f"experiments/{experiment_id}/runs/{run_id}")

    def overviews(self, address: str) -> dict[str, str]:
        """Return the pages of the UI at `address` that list the runs of our experiments, by the experiments' names."""
        key = runs_view.TAG.rpartition(".")[2]
        return {
            name: f"{address}/#/experiments/{experiment_id}/runs{store.UI_VIEW}&viewStateShareKey={key}"
            for name, experiment_id in self.list_experiments().items()
        }

    def list_experiments(self) -> dict[str, str]:
        """Return the ids of our experiments of trainings, by their names, in alphabetical order."""
        with self._opening():
            found = self.reader.list_experiments()
        ours = sorted(
            (one.name, one.experiment_id) for one in found if one.stage in ACTIVE and runs_view.TAG in one.tags
        )
        return dict(ours)

    def find_experiment(self, name: str) -> str | None:
        """Return the id of the experiment; None if there is none.

        Raises:
            UserError: It was deleted.
        """
        with self._opening():
            found = self.reader.list_experiments()
        experiment = next((one for one in found if one.name == name), None)
        if experiment is None:
            return None
        if experiment.stage not in ACTIVE:
            raise UserError(
                f"the experiment {name} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}) or, if tracking.experiment= names it, choose another"
            )
        return experiment.experiment_id

    def require_experiment(self, name: str, *, has_trainings: bool = True) -> str:
        """Return the id of the experiment; it is created if there is none.

        Args:
            name: Of the experiment.
            has_trainings: Whether its runs are trainings, so that the UI shows a view of their results.

        Raises:
            UserError: It was deleted, or the store fails.
        """
        found = self.find_experiment(name)
        if found is not None:
            return found
        location = store.artifact_location(self.uri, self._artifact_location, experiment=name)
        with self._opening():
            try:
                created = self.client.create_experiment(
                    name,
                    artifact_location=location,
                    tags={**_KIND_TAGS, **(_OVERVIEW_TAGS if has_trainings else {})},
                )
                return str(created)
            except Exception:
                found = self.find_experiment(name)  # another process was faster
                if found is None:
                    raise
                return found

    def show_columns(self, experiment_id: str, params: Collection[str]) -> None:
        """Add those of the params that are keys of a model to the columns of the UI's list of runs."""
        found = self.reader.list_experiments()
        before = next(one.tags for one in found if one.experiment_id == experiment_id).get(runs_view.TAG, "{}")
        known = runs_view.list_model_keys(before)
        view = runs_view.describe([*known, *(key for key in params if key.startswith("model.") and key not in known)])
        if view != before:
            self.client.set_experiment_tag(experiment_id, runs_view.TAG, view)

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_of_store(error) and not isinstance(error, ImportError | OSError):
                raise
            if is_locked(error):
                raise UserError(self._describe_lock(error)) from error
            why, next_step = self._explain(error)
            raise UserError(
                f"the tracking store {self.uri} cannot be opened ({hide(why)}): {next_step}, or give tracking.uri= "
                "another one"
            ) from error

    def _describe_lock(self, error: Exception) -> str:
        return sqlite_store.describe_lock(f"the tracking store {self.uri}", error)

    def _explain(self, error: Exception) -> tuple[str, str]:
        """Return why the store cannot be opened, and the next step."""
        why = explain(error)
        # MLflow also says of a newer schema that it is out of date and should be upgraded.
        found = re.search(r"(?:database schema \(found version|Can't locate revision identified by) '?(\w+)", why)
        if found and not sqlite_store.is_known(found[1]):
            return (
                f"its schema {found[1]} is of an MLflow newer than {importlib.metadata.version('mlflow')}",
                "upgrade the package mlflow",
            )
        if found:
            uri = shlex.quote(self.uri)
            return f"its schema {found[1]} is of an older MLflow", f"back it up and run mlflow db upgrade {uri}"
        return why, "fix that"


def user() -> str:
    """Return the name of the user who runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def host() -> str:
    """Return the name of this machine."""
    return platform.node() or "unknown"
