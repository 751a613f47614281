"""The runs in an MLflow store, read back as records."""

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.entities import Experiment, LoggedModel, ViewType
from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline.config.sections import ADDRESS_KEYS
from mnist_pipeline.system import secrets
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.tracking import sqlite_search
from mnist_pipeline.tracking.artifacts import ArtifactFolder, is_absent
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import INHERITED, Artifact, Kind, RunRecord, Tag, of_kept_epoch
from mnist_pipeline.tracking.sqlite_search import Condition, StoredRun

ACTIVE, DELETED, ALL = ("active",), ("deleted",), ("active", "deleted")
"""The stages of runs that `search` finds."""
_VIEWS = {ACTIVE: ViewType.ACTIVE_ONLY, DELETED: ViewType.DELETED_ONLY, ALL: ViewType.ALL}

_PAGE = 1000


def read(store: MlflowStore, run: StoredRun) -> RunRecord:
    """Return the record of a run. Secrets that earlier versions logged are masked."""

    def read_bytes(path: str) -> bytes:
        try:
            return ArtifactFolder(run.artifact_uri, tracking_uri=store.connected).read(path)
        except FileNotFoundError:
            may_inherit = path in INHERITED and Tag.PARENT in run.tags
            parent = get(store, run.tags[Tag.PARENT]) if may_inherit else None
            if parent is None:
                raise
            return parent.read_bytes(path)

    return RunRecord(
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        name=run.name,
        status=run.status,
        address=store.run_address(run.experiment_id, run.run_id),
        started_ms=run.started_ms,
        params=_mask(run.params),
        metrics=of_kept_epoch({key: _restore(value) for key, value in run.metrics.items()}),
        tags=_mask(run.tags),
        read_bytes=read_bytes,
        is_deleted=run.stage != "active",
    )


def describe(entity: MlflowEntity) -> StoredRun:
    """Return a run of MLflow's client as a stored run."""
    info, data = entity.info, entity.data
    return StoredRun(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        name=info.run_name or "",
        status=info.status,
        started_ms=info.start_time or 0,
        stage=info.lifecycle_stage,
        artifact_uri=info.artifact_uri,
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
    )


def _restore(value: float) -> float:
    """Return the value that was logged: a database keeps an infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _mask(logged: Mapping[str, str]) -> dict[str, str]:
    hidden = secrets.hide_in(logged)
    return hidden | {key: secrets.mask(logged[key]) for key in ADDRESS_KEYS if key in logged}


def get(store: MlflowStore, run_id: str) -> RunRecord | None:
    """Return the run with this id, even if it was deleted; None where there is none."""
    try:
        return read(store, describe(store.client.get_run(run_id)))
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
    stages: tuple[str, ...] = ACTIVE,
    keys: Collection[str] | None = None,
) -> Iterator[RunRecord]:
    """Yield the runs with all of `tags`, page by page, the newest first.

    Args:
        store: Where they are.
        experiment_ids: The experiments to search; an empty list finds nothing.
        tags: That the runs must have, with these values.
        conditions: Further conditions, in the language of MLflow's filters.
        stages: Whether those that are deleted are found too.
        keys: Of the params, metrics and tags that are needed; what else the runs have may be missing then.
    """
    for run in search_stored(store, experiment_ids, tags, conditions=conditions, stages=stages, keys=keys):
        yield read(store, run)


def search_stored(
    store: MlflowStore,
    experiment_ids: list[str],
    tags: Mapping[str, str],
    *,
    conditions: tuple[str, ...] = (),
    stages: tuple[str, ...] = ACTIVE,
    keys: Collection[str] | None = None,
) -> Iterator[StoredRun]:
    """Yield what `search` does, as the store has it."""
    filter_string = _join(tags, conditions)
    chosen = _choose(store, experiment_ids, filter_string, stages)
    if chosen is not None:
        yield from store.client.carry_out(sqlite_search.search, store.database, chosen, keys=keys)
        return
    token = None
    while experiment_ids:
        page = store.client.search_runs(
            experiment_ids,
            filter_string=filter_string,
            run_view_type=_VIEWS[stages],
            order_by=["attributes.start_time DESC"],
            max_results=_PAGE,
            page_token=token,
        )
        yield from map(describe, page)
        token = page.token
        if not token:
            return


def _join(tags: Mapping[str, str], conditions: Sequence[str]) -> str:
    return " and ".join([*(f"tags.`{key}` = '{value}'" for key, value in tags.items()), *conditions])


def _choose(
    store: MlflowStore, experiment_ids: Sequence[str], filter_string: str, stages: Sequence[str]
) -> Condition | None:
    """Return the condition by which a local store is searched; None if MLflow has to search."""
    known = sqlite_search.translate(filter_string) if store.database is not None and experiment_ids else None
    return None if known is None else sqlite_search.choose(experiment_ids, known, stages=stages)


def search_named(store: MlflowStore, experiment_ids: list[str], name: str) -> Iterator[StoredRun]:
    """Yield the runs whose names begin with `name`, and perhaps others."""
    quote = '"' if "'" in name else "'"
    # MLflow's filters cannot quote both.
    condition = () if quote in name else (f"attributes.run_name LIKE {quote}{name}%{quote}",)
    return search_stored(store, experiment_ids, {}, conditions=condition)


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
    chosen = _choose(store, experiments, _join(tags, scored), ALL)
    if chosen is not None:
        return int(store.client.carry_out(sqlite_search.count, store.database, chosen))
    return sum(1 for _ in search_stored(store, experiments, tags, conditions=scored, stages=ALL))


def find_model(store: MlflowStore, run: RunRecord) -> LoggedModel | None:
    """Return the model that the run logged; None where it is missing or incomplete."""
    found = store.client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'")
    return next((model for model in found if model.status.value == "READY"), None)


def open_model_folder(store: MlflowStore, model_id: str) -> ArtifactFolder:
    """Return the files of a logged model."""
    return ArtifactFolder(store.client.get_logged_model(model_id).artifact_location, tracking_uri=store.connected)


def tag_only(store: MlflowStore, run_id: str | None, key: str, value: str) -> None:
    """Give the run the tag, if it was not deleted, and take it with this value from every other run."""
    tagged = {run.run_id for run in search_stored(store, experiment_ids(store), {key: value})}
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
