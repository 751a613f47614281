"""An MLflow store, opened: its client, its addresses, its experiments, and its failures told in one line."""

import contextlib
import errno
import getpass
import json
import logging
import platform
import re
from collections.abc import Iterator

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mnist_pipeline import store
from mnist_pipeline.config import TrackingConfig, without_password
from mnist_pipeline.errors import UserError

# MLflow shows no metric of a run until its column is chosen. By such a tag the UI shares a view: here for all of ours.
# Runs stay in the order of their creation, without which the children of a sweep would not stand below their parent.
_COLUMNS = (
    *("attributes.`Created`", "attributes.`Duration`", "tags.`kind`", "tags.`alias`"),
    *("metrics.`validation/accuracy`", "metrics.`test/accuracy`", "metrics.`test/loss`", "metrics.`time/train_sec`"),
    *("params.`model.hidden_width`", "params.`model.dropout_rate`", "params.`train.num_epochs`", "params.`train.seed`"),
)
# Without it the UI opens the experiment in its view for generative AI.
_KIND_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_OVERVIEW_TAGS = {
    f"mlflow.sharedViewState.{store.OVERVIEW}": json.dumps({"selectedColumns": _COLUMNS}),
    "mlflow.note.content": (
        "Runs by their tag `kind`: `train` (one training), `sweep` (a study) with its children `trial`, `confirm` and "
        "`final`. Names say data, width, dropout, epochs and seed. The tag `alias` marks the runs of champion and "
        "challenger. In the terminal: `mnist-pipeline compare`, `diff` and `report`."
    ),
}


class MlflowStore:
    """The MLflow store of a configuration, created where it is missing.

    Raises:
        UserError: The store cannot be opened.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.uri = store.resolve_uri(config)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # it logs a traceback of what it raises as well
        with self._opening():
            store.create(self.uri)
            mlflow.set_tracking_uri(self.uri)
            self.client = MlflowClient(self.uri)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell of a store that fails in one line."""
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # no matter of the store's
            raise UserError(
                f"the tracking store {without_password(self.uri)} fails ({_reason(error)}): mend it and run the same "
                "command again; it goes on from where this one stopped"
            ) from error

    def address(self, page: str) -> str:
        """Return the address of a page of the MLflow UI; of a local store the one at which `make ui` shows it."""
        server = without_password(self.uri).rstrip("/") if store.is_server(self.uri) else "http://127.0.0.1:5000"
        return f"{server}/#/{page}{store.UI_VIEW}"

    def run_address(self, experiment_id: str, run_id: str) -> str:
        """Return the address of a run's page."""
        return self.address(f"experiments/{experiment_id}/runs/{run_id}")

    def overviews(self, address: str) -> dict[str, str]:
        """Return the pages that list the runs of each of our experiments, at the UI's address, by the experiments."""
        tag = f"mlflow.sharedViewState.{store.OVERVIEW}"
        with self._opening():
            found = self.client.search_experiments(filter_string=f"tags.`{tag}` LIKE '%'", order_by=["name"])
        return {
            experiment.name: f"{address}/#/experiments/{experiment.experiment_id}/runs{store.UI_VIEW}"
            f"&viewStateShareKey={store.OVERVIEW}"
            for experiment in found
        }

    def find_experiment(self, name: str) -> str | None:
        """Return the id of the experiment; None where there is none.

        Raises:
            UserError: It was deleted.
        """
        with self._opening():
            experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {name} was deleted: restore it (mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}) or, if tracking.experiment= names it, choose another"
            )
        return str(experiment.experiment_id)

    def require_experiment(self, name: str, *, has_trainings: bool = True) -> str:
        """Return the id of the experiment, which is created where there is none.

        Args:
            name: Of the experiment.
            has_trainings: Whether its runs are trainings, and it gets a view of their results in the UI.

        Raises:
            UserError: It was deleted, or the store fails.
        """
        found = self.find_experiment(name)
        if found is not None:
            return found
        artifacts = store.artifacts_dir(self.uri)
        location = (artifacts / re.sub(r"[^\w-]+", "-", name)).as_uri() if artifacts else None
        with self._opening():
            try:
                created = self.client.create_experiment(
                    name,
                    artifact_location=location,
                    tags={**_KIND_TAGS, **(_OVERVIEW_TAGS if has_trainings else {})},
                )
                return str(created)
            except MlflowException:
                found = self.find_experiment(name)  # another process was faster
                if found is None:
                    raise
                return found

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            raise UserError(
                f"the tracking store {without_password(self.uri)} cannot be opened ({_reason(error)}): mend it (mlflow "
                "db upgrade URI, where MLflow is newer than the store), or give tracking.uri= another one"
            ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def user() -> str:
    """Return the name of whoever runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def host() -> str:
    """Return the name of this machine."""
    return platform.node() or "unknown"
