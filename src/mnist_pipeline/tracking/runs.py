"""Runs that are in the store, read back."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow.entities import LoggedModel, ViewType
from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline.config.sections import ADDRESS_KEYS
from mnist_pipeline.system import secrets
from mnist_pipeline.tracking.artifacts import ArtifactFolder, is_absent
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.tracker import REPORT, PastRun

_PAGE = 1000


def read(store: MlflowStore, entity: MlflowEntity) -> PastRun:
    """Return the run as plain values. Secrets that earlier versions logged are masked."""
    run_id = entity.info.run_id
    return PastRun(
        run_id=run_id,
        experiment_id=entity.info.experiment_id,
        name=entity.info.run_name,
        status=entity.info.status,
        address=store.run_address(entity.info.experiment_id, run_id),
        started_ms=entity.info.start_time,
        params=_masked(entity.data.params),
        metrics=entity.data.metrics,
        tags=_masked(entity.data.tags),
        read=ArtifactFolder(entity.info.artifact_uri, tracking_uri=store.connected).read,
    )


def _masked(logged: Mapping[str, str]) -> dict[str, str]:
    return {key: secrets.mask(value) if key in ADDRESS_KEYS else secrets.hide(value) for key, value in logged.items()}


def search(
    store: MlflowStore,
    experiment_ids: list[str],
    tags: Mapping[str, str],
    *,
    conditions: tuple[str, ...] = (),
    view: str = ViewType.ACTIVE_ONLY,
) -> Iterator[MlflowEntity]:
    """Yield the runs with all of `tags`, page by page, the newest first.

    Args:
        store: Where they are.
        experiment_ids: In which experiments; none finds none.
        tags: With which values.
        conditions: What else MLflow's filter is to ask for.
        view: MLflow's `ViewType`: whether deleted runs are among them.
    """
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    token = None
    while experiment_ids:
        page = store.client.search_runs(
            experiment_ids,
            filter_string=" and ".join([*wanted, *conditions]),
            run_view_type=view,
            order_by=["attributes.start_time DESC"],
            max_results=_PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def experiment_ids(store: MlflowStore, *, view: str = ViewType.ACTIVE_ONLY) -> list[str]:
    """Return the ids of all experiments."""
    found: list[str] = []
    token = None
    while True:
        page = store.client.search_experiments(view_type=view, page_token=token)
        found += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return found


def find_model(store: MlflowStore, run: MlflowEntity) -> LoggedModel | None:
    """Return the model that the run logged; None where it is not there, or not whole."""
    experiment_id, run_id = run.info.experiment_id, run.info.run_id
    found = store.client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return next((model for model in found if model.status.value == "READY"), None)


def tag_only(store: MlflowStore, run_id: str | None, key: str, value: str) -> None:
    """Let the run have the tag, if it was not deleted, and no other run have it with this value."""
    tagged = {entity.info.run_id for entity in search(store, experiment_ids(store), {key: value})}
    for other in tagged - {run_id}:
        try:
            store.client.delete_tag(other, key)
        except MlflowException as error:
            if not is_absent(error):  # another process was faster
                raise
    if run_id is None or run_id in tagged:
        return
    try:
        if store.client.get_run(run_id).info.lifecycle_stage == "active":
            store.client.set_tag(run_id, key, value)
    except MlflowException as error:
        if not is_absent(error):  # mlflow gc may have removed the run of a version
            raise


def log_report(store: MlflowStore, run_id: str, page: str) -> None:
    """Log a page about the run, in the place of an earlier one."""
    store.client.log_text(run_id, page, REPORT)


def has_report(store: MlflowStore, run_id: str) -> bool:
    """Return whether a page about the run was logged."""
    return any(info.path == REPORT for info in store.client.list_artifacts(run_id, str(Path(REPORT).parent)))


def report_page(experiment_id: str, run_id: str) -> str:
    """Return the page of the MLflow UI that shows the report on a run."""
    return f"experiments/{experiment_id}/runs/{run_id}/artifacts/{REPORT}"
