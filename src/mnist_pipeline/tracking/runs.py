"""The runs in an MLflow store, read back as records."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.entities import Experiment, LoggedModel, ViewType
from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline.config.sections import ADDRESS_KEYS
from mnist_pipeline.system import secrets
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.tracking.artifacts import ArtifactFolder, is_absent
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import INHERITED, Artifact, Kind, RunRecord, Tag, of_kept_epoch

ALL = ViewType.ALL
"""Of `search`: deleted runs too."""

_PAGE = 1000


def read(store: MlflowStore, entity: MlflowEntity) -> RunRecord:
    """Return the record of a run. Secrets that earlier versions logged are masked."""
    run_id = entity.info.run_id

    def read_bytes(path: str) -> bytes:
        try:
            return ArtifactFolder(entity.info.artifact_uri, tracking_uri=store.connected).read(path)
        except FileNotFoundError:
            may_inherit = path in INHERITED and Tag.PARENT in entity.data.tags
            parent = get(store, entity.data.tags[Tag.PARENT]) if may_inherit else None
            if parent is None:
                raise
            return parent.read_bytes(path)

    return RunRecord(
        run_id=run_id,
        experiment_id=entity.info.experiment_id,
        name=entity.info.run_name,
        status=entity.info.status,
        address=store.run_address(entity.info.experiment_id, run_id),
        started_ms=entity.info.start_time,
        params=_mask(entity.data.params),
        metrics=of_kept_epoch({key: _restore(value) for key, value in entity.data.metrics.items()}),
        tags=_mask(entity.data.tags),
        read_bytes=read_bytes,
        is_deleted=entity.info.lifecycle_stage != "active",
    )


def _restore(value: float) -> float:
    """Return the value that was logged: a database keeps an infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _mask(logged: Mapping[str, str]) -> dict[str, str]:
    return {key: secrets.mask(value) if key in ADDRESS_KEYS else secrets.hide(value) for key, value in logged.items()}


def get(store: MlflowStore, run_id: str) -> RunRecord | None:
    """Return the run with this id, even if it was deleted; None where there is none."""
    try:
        return read(store, store.client.get_run(run_id))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def search(
    store: MlflowStore,
    experiment_ids: list[str],
    tags: Mapping[str, str],
    *,
    conditions: tuple[str, ...] = (),
    view: str = ViewType.ACTIVE_ONLY,
) -> Iterator[RunRecord]:
    """Yield the runs with all of `tags`, page by page, the newest first.

    Args:
        store: Where they are.
        experiment_ids: The experiments to search; an empty list finds nothing.
        tags: That the runs must have, with these values.
        conditions: Further conditions, in the language of MLflow's filters.
        view: MLflow's `ViewType`: whether deleted runs are found too.
    """
    for entity in search_entities(store, experiment_ids, tags, conditions=conditions, view=view):
        yield read(store, entity)


def search_entities(
    store: MlflowStore,
    experiment_ids: list[str],
    tags: Mapping[str, str],
    *,
    conditions: tuple[str, ...] = (),
    view: str = ViewType.ACTIVE_ONLY,
) -> Iterator[MlflowEntity]:
    """Yield what `search` does, as MLflow has it."""
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


def search_named(store: MlflowStore, experiment_ids: list[str], name: str) -> Iterator[MlflowEntity]:
    """Yield the runs whose names begin with `name`, and perhaps others."""
    quote = '"' if "'" in name else "'"
    # MLflow's filters cannot quote both.
    condition = () if quote in name else (f"attributes.run_name LIKE {quote}{name}%{quote}",)
    return search_entities(store, experiment_ids, {}, conditions=condition)


def filter_runs(store: MlflowStore, experiment_ids: list[str], condition: str | None) -> list[RunRecord]:
    """Return the runs that fit a condition typed by a user, in the language of MLflow's search box.

    Raises:
        ConfigError: MLflow does not understand the condition.
    """
    try:
        return list(search(store, experiment_ids, {}, conditions=() if condition is None else (condition,)))
    except MlflowException as error:
        if condition is None or error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"--filter {condition}: {reason}; use the language of MLflow's search box, e.g. \"metrics.`test/accuracy` "
            '> 0.97"'
        ) from error


def experiment_name(store: MlflowStore, run: RunRecord) -> str:
    """Return the name of the experiment that a run is in."""
    return str(store.client.get_experiment(run.experiment_id).name)


def experiment_names(store: MlflowStore) -> list[str]:
    """Return the names of all experiments that are not deleted."""
    return [str(experiment.name) for experiment in _list_experiments(store, ViewType.ACTIVE_ONLY)]


def experiment_ids(store: MlflowStore, *, with_deleted: bool = False) -> list[str]:
    """Return the ids of all experiments."""
    view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
    return [str(experiment.experiment_id) for experiment in _list_experiments(store, view)]


def _list_experiments(store: MlflowStore, view: str) -> Iterator[Experiment]:
    token = None
    while True:
        page = store.client.search_experiments(view_type=view, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def count_scored(store: MlflowStore, tags: Mapping[str, str]) -> int:
    """Return how many runs with all of `tags` were ever scored on the test split, deleted ones included.

    A reproduction does not count: its score is known before.
    """
    scored = ("metrics.`test/accuracy` >= 0", f"tags.{Tag.KIND} != '{Kind.REPRODUCTION}'")
    experiments = experiment_ids(store, with_deleted=True)
    return sum(1 for _ in search_entities(store, experiments, tags, conditions=scored, view=ViewType.ALL))


def find_model(store: MlflowStore, run: RunRecord) -> LoggedModel | None:
    """Return the model that the run logged; None where it is missing or incomplete."""
    found = store.client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'")
    return next((model for model in found if model.status.value == "READY"), None)


def open_model_folder(store: MlflowStore, model_id: str) -> ArtifactFolder:
    """Return the files of a logged model."""
    return ArtifactFolder(store.client.get_logged_model(model_id).artifact_location, tracking_uri=store.connected)


def tag_only(store: MlflowStore, run_id: str | None, key: str, value: str) -> None:
    """Give the run the tag, if it was not deleted, and take it with this value from every other run."""
    tagged = {entity.info.run_id for entity in search_entities(store, experiment_ids(store), {key: value})}
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


def list_open(store: MlflowStore) -> Iterator[RunRecord]:
    """Yield the runs of this project that are RUNNING, but not the entries of a ledger."""
    is_running = ("attributes.status = 'RUNNING'", f"tags.{Tag.KIND} != '{Kind.PROMOTION}'")
    return search(store, experiment_ids(store), {}, conditions=is_running)


def abandon(store: MlflowStore, run: RunRecord, *, why: str) -> bool:
    """Mark a run KILLED whose process has ended; return whether that was done.

    It is left alone if another process has resumed it since: that writes its own tag before the status.
    """
    now = store.client.get_run(run.run_id)
    if now.info.status != "RUNNING" or now.data.tags.get(Tag.PROCESS) != run.tags.get(Tag.PROCESS):
        return False
    store.client.set_tag(run.run_id, Tag.REASON, why)
    store.client.set_terminated(run.run_id, "KILLED")
    return True


def find_last_sign(store: MlflowStore, run: RunRecord) -> int:
    """Return when a run was last written to, as far as it shows: in milliseconds of Unix time."""
    points = store.client.get_run(run.run_id).data.metrics
    history = store.client.get_metric_history(run.run_id, next(iter(points))) if points else []
    return max([run.started_ms, *(int(point.timestamp) for point in history)])


def log_report(store: MlflowStore, run_id: str, page: str) -> None:
    """Log a page about the run, in the place of an earlier one."""
    store.client.log_text(run_id, page, Artifact.REPORT)


def has_report(store: MlflowStore, run_id: str) -> bool:
    """Return whether a page about the run was logged."""
    infos = store.client.list_artifacts(run_id, str(Path(Artifact.REPORT).parent))
    return any(info.path == Artifact.REPORT for info in infos)


def log_verdict(store: MlflowStore, verdict: str, run_ids: Sequence[str], *, is_identical: bool) -> None:
    """Log the verdict of a reproduction on the original and on the new run, in the place of an earlier one."""
    for run_id in run_ids:
        store.client.log_text(run_id, verdict, Artifact.REPRODUCTION)
        store.client.set_tag(run_id, Tag.VERDICT, "identical" if is_identical else "different")


def report_page(experiment_id: str, run_id: str) -> str:
    """Return the page of the MLflow UI that shows the report on a run."""
    return f"experiments/{experiment_id}/runs/{run_id}/artifacts/{Artifact.REPORT}"
