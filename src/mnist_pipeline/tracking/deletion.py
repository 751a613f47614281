"""Runs that were deleted in MLflow, removed for good with their files, as `mlflow gc` does for all of them at once."""

from collections.abc import Iterator

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mnist_pipeline.tracking import runs, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import ACTIVE, DELETED
from mnist_pipeline.tracking.record import RunRecord


def list_deleted(opened: MlflowStore) -> Iterator[RunRecord]:
    """Yield the runs that were deleted, and can still be restored."""
    experiments = runs.experiment_ids(opened, with_deleted=True)
    return runs.search(opened, experiments, {}, stages=DELETED)


def delete_for_good(opened: MlflowStore, run_id: str) -> bool:
    """Remove a deleted run, its logged models and all their files; return False if it was restored meanwhile.

    Files go first, so that a kill leaves a run that is still listed as deleted.
    """
    run = opened.reader.find_run(run_id)
    if run is None:
        return True  # another command was faster
    if run.stage in ACTIVE:
        return False
    database = _open_database(opened)
    for model in opened.reader.list_models(run_id, experiment_id=run.experiment_id):
        get_artifact_repository(model.location).delete_artifacts()
        database.delete_logged_model(model.model_id)
        database._hard_delete_logged_model(model.model_id)
    get_artifact_repository(run.artifact_uri).delete_artifacts()
    database._hard_delete_run(run_id)
    return True


def _open_database(opened: MlflowStore) -> SqlAlchemyStore:
    artifacts = store.artifacts_dir(opened.uri)
    assert artifacts is not None
    return SqlAlchemyStore(opened.connected, artifacts.as_uri())
