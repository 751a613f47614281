"""The runs in an MLflow store, read back as records."""

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

from mnist_pipeline.config.sections import ADDRESS_KEYS
from mnist_pipeline.system import secrets
from mnist_pipeline.system.errors import ConfigError, GoneError
from mnist_pipeline.tracking.absence import is_absent, is_of_store
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import ACTIVE, ALL, Condition, StoredModel, StoredRun, has_tags
from mnist_pipeline.tracking.record import INHERITED, Artifact, Kind, Metric, RunRecord, Tag, of_kept_epoch


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
        metrics=read_metrics(run),
        tags=_mask(run.tags),
        read_bytes=read_bytes,
        is_deleted=run.stage != "active",
    )


def read_metrics(run: StoredRun) -> dict[str, float]:
    """Return the last values of a run's metrics; of those by epoch, the values of the epoch that was kept."""
    return of_kept_epoch({key: _restore(value) for key, value in run.metrics.items()})


def _restore(value: float) -> float:
    """Return the value that was logged: a database keeps an infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _mask(logged: Mapping[str, str]) -> dict[str, str]:
    hidden = secrets.hide_in(logged)
    return hidden | {key: secrets.mask(logged[key]) for key in ADDRESS_KEYS if key in logged}


def get(store: MlflowStore, run_id: str) -> RunRecord | None:
    """Return the run with this id, even if it was deleted; None where there is none."""
    found = store.reader.find_run(run_id)
    return None if found is None else read(store, found)


def require_stored(store: MlflowStore, run_id: str) -> StoredRun:
    """Return the run with this id, as the store has it.

    Raises:
        GoneError: There is none any more.
    """
    found = store.reader.find_run(run_id)
    if found is None:
        raise GoneError(f"the run {run_id} was deleted meanwhile: run the same command again")
    return found


def search(
    store: MlflowStore,
    experiment_ids: list[str],
    tags: Mapping[str, str],
    *,
    conditions: Sequence[Condition | str] = (),
    stages: Sequence[str] = ACTIVE,
    keys: Collection[str] | None = None,
) -> Iterator[RunRecord]:
    """Yield the runs with all of `tags`, the newest first.

    Args:
        store: Where they are.
        experiment_ids: The experiments to search; an empty list finds nothing.
        tags: That the runs must have, with these values.
        conditions: Further conditions; a text is one that a user typed, in the language of MLflow's filters.
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
    conditions: Sequence[Condition | str] = (),
    stages: Sequence[str] = ACTIVE,
    keys: Collection[str] | None = None,
) -> Iterator[StoredRun]:
    """Yield what `search` does, as the store has it."""
    return store.reader.search(experiment_ids, [*has_tags(tags), *conditions], stages=stages, keys=keys)


def search_named(store: MlflowStore, experiment_ids: list[str], name: str) -> Iterator[StoredRun]:
    """Yield the runs whose names begin with `name`, and perhaps others."""
    is_quotable = not ("'" in name and '"' in name)
    condition = (Condition("attribute", "run_name", "LIKE", f"{name}%"),) if is_quotable else ()
    return search_stored(store, experiment_ids, {}, conditions=condition)


def filter_runs(store: MlflowStore, experiment_ids: list[str], condition: str | None) -> list[RunRecord]:
    """Return the runs that fit a condition typed by a user, in the language of MLflow's search box.

    Raises:
        ConfigError: MLflow does not understand the condition.
    """
    try:
        return list(search(store, experiment_ids, {}, conditions=() if condition is None else (condition,)))
    except Exception as error:
        if condition is None or not (is_of_store(error) and is_absent(error)):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"--filter {condition}: {reason}; use the language of MLflow's search box, e.g. \"metrics.`test/accuracy` "
            '> 0.97"'
        ) from error


def experiment_name(store: MlflowStore, run: RunRecord) -> str:
    """Return the name of the experiment that a run is in."""
    return next(one.name for one in store.reader.list_experiments() if one.experiment_id == run.experiment_id)


def experiment_names(store: MlflowStore) -> list[str]:
    """Return the names of all experiments that are not deleted."""
    return [one.name for one in store.reader.list_experiments() if one.stage in ACTIVE]


def experiment_ids(store: MlflowStore, *, with_deleted: bool = False) -> list[str]:
    """Return the ids of all experiments."""
    found = store.reader.list_experiments()
    return [one.experiment_id for one in found if with_deleted or one.stage in ACTIVE]


def count_scored(store: MlflowStore, tags: Mapping[str, str]) -> int:
    """Return how many runs with all of `tags` were ever scored on the test split, deleted ones included.

    A reproduction does not count: its score is known before.
    """
    scored = (Condition("metric", Metric.TEST_ACCURACY, ">=", 0), Condition("tag", Tag.KIND, "!=", Kind.REPRODUCTION))
    return store.reader.count(experiment_ids(store, with_deleted=True), [*has_tags(tags), *scored], stages=ALL)


def find_model(store: MlflowStore, run: RunRecord | StoredRun) -> StoredModel | None:
    """Return the model that the run logged; None where it is missing or incomplete."""
    found = store.reader.list_models(run.run_id, experiment_id=run.experiment_id)
    return next((model for model in found if model.is_ready), None)


def open_model_folder(store: MlflowStore, model: StoredModel) -> ArtifactFolder:
    """Return the files of a logged model."""
    return ArtifactFolder(model.location, tracking_uri=store.connected)


def tag_only(store: MlflowStore, run_id: str | None, key: str, value: str) -> None:
    """Give the run the tag, if it was not deleted, and take it with this value from every other run."""
    tagged = {run.run_id for run in search_stored(store, experiment_ids(store), {key: value})}
    for other in tagged - {run_id}:
        try:
            store.client.delete_tag(other, key)
        except Exception as error:
            if not is_absent(error):  # another process was faster
                raise
    if run_id is None or run_id in tagged:
        return
    try:
        run = store.reader.find_run(run_id)
        if run is not None and run.stage in ACTIVE:
            store.client.set_tag(run_id, key, value)
    except Exception as error:
        if not is_absent(error):  # mlflow gc may have removed the run of a version
            raise


def list_open(store: MlflowStore) -> Iterator[RunRecord]:
    """Yield the runs of this project that are RUNNING, but not the entries of a ledger."""
    is_running = (Condition("attribute", "status", "=", "RUNNING"), Condition("tag", Tag.KIND, "!=", Kind.PROMOTION))
    return search(store, experiment_ids(store), {}, conditions=is_running)


def abandon(store: MlflowStore, run: RunRecord, *, why: str) -> bool:
    """Mark a run KILLED whose process has ended; return whether that was done.

    It is left alone if another process has resumed it since: that writes its own tag before the status.
    """
    now = store.reader.find_run(run.run_id)
    if now is None or now.status != "RUNNING" or now.tags.get(Tag.PROCESS) != run.tags.get(Tag.PROCESS):
        return False
    store.client.set_tag(run.run_id, Tag.REASON, why)
    store.client.set_terminated(run.run_id, "KILLED")
    return True


def find_last_sign(store: MlflowStore, run: RunRecord) -> int:
    """Return when a run was last written to, as far as it shows: in milliseconds of Unix time."""
    now = store.reader.find_run(run.run_id)
    points = store.reader.read_points(run.run_id, next(iter(now.metrics))) if now and now.metrics else []
    return max([run.started_ms, *(point.timestamp_ms for point in points)])


def log_report(store: MlflowStore, run_id: str, page: str) -> None:
    """Log a page about the run, in the place of an earlier one."""
    store.client.log_text(run_id, page, Artifact.REPORT)


def has_report(store: MlflowStore, run_id: str) -> bool:
    """Return whether a page about the run was logged."""
    run = store.reader.find_run(run_id)
    return run is not None and ArtifactFolder(run.artifact_uri, tracking_uri=store.connected).has(Artifact.REPORT)


def log_verdict(store: MlflowStore, verdict: str, run_ids: Sequence[str], *, is_identical: bool) -> None:
    """Log the verdict of a reproduction on the original and on the new run, in the place of an earlier one."""
    for run_id in run_ids:
        store.client.log_text(run_id, verdict, Artifact.REPRODUCTION)
        store.client.set_tag(run_id, Tag.VERDICT, "identical" if is_identical else "different")


def report_page(experiment_id: str, run_id: str) -> str:
    """Return the page of the MLflow UI that shows the report on a run."""
    return f"experiments/{experiment_id}/runs/{run_id}/artifacts/{Artifact.REPORT}"
