"""Runs that hold a decision instead of a training: opened, written in one call, closed."""

import time
from collections.abc import Mapping

from mnist_pipeline.system import processes
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore, user
from mnist_pipeline.tracking.reading import ALL
from mnist_pipeline.tracking.record import RunRecord, Tag

_MAX_TAG_LENGTH = 5000


def list_entries(store: MlflowStore, experiment: str, kind: str) -> list[RunRecord]:
    """Return all entries of a kind in an experiment, deleted ones included; none if there is no such experiment."""
    experiment_id = store.find_experiment(experiment)
    return list(runs.search(store, [experiment_id] if experiment_id else [], {Tag.KIND: kind}, stages=ALL))


def open_entry(store: MlflowStore, experiment: str, *, name: str, tags: Mapping[str, str], started_ms: int) -> str:
    """Open an entry and return its run id; the experiment is created if it is missing."""
    run = store.client.create_run(
        store.require_experiment(experiment, has_trainings=False),
        start_time=started_ms,
        run_name=name,
        tags={
            **tags,
            Tag.USER: user(),
            Tag.PROGRAM: "mnist-pipeline",
            Tag.PROGRAM_KIND: "LOCAL",
            Tag.PROCESS: processes.current().to_json(),
        },
    )
    return str(run.info.run_id)


def write_entry(
    store: MlflowStore,
    run_id: str,
    *,
    tags: Mapping[str, str],
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
) -> None:
    """Write into an entry. MLflow writes the tags last and all at once: who sees one of them sees everything."""
    from mlflow.entities import Metric, Param, RunTag  # imported here, because reading needs no MLflow

    now_ms = time.time_ns() // 1_000_000
    store.client.log_batch(
        run_id,
        metrics=[Metric(key, value, now_ms, 0) for key, value in (metrics or {}).items()],
        params=[Param(key, value) for key, value in (params or {}).items()],
        tags=[RunTag(key, value[:_MAX_TAG_LENGTH]) for key, value in tags.items()],
    )


def attach_text(store: MlflowStore, run_id: str, *, path: str, text: str) -> None:
    """Log a text as an artifact of an entry, in the place of an earlier one."""
    store.client.log_text(run_id, text, path)


def close_entry(store: MlflowStore, run_id: str, *, status: str) -> None:
    """End an entry as FINISHED or KILLED."""
    store.client.set_terminated(run_id, status)
