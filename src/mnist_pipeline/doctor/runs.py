"""Runs that say RUNNING although nobody runs them, and runs that were deleted in the UI."""

import time
from collections.abc import Iterator
from functools import partial

from mnist_pipeline.doctor.finding import Finding, Remedy, show_age
from mnist_pipeline.pipeline.checkpoints import lock_of
from mnist_pipeline.registry.ledger import list_ledgers
from mnist_pipeline.sweep.storage import lock_of_study
from mnist_pipeline.system import locks, processes
from mnist_pipeline.tracking import deletion, outbox, runs, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import Condition
from mnist_pipeline.tracking.record import Kind, RunRecord, Tag
from mnist_pipeline.tracking.registered_models import list_models

SILENT_SEC = 7 * 86_400.0
"""After this time without a sign, a run of another machine counts as abandoned."""

_WHY = "its process ended without a word; found by doctor"


def find_abandoned(opened: MlflowStore) -> Iterator[Finding]:
    """Yield the runs that are left RUNNING by processes that have ended, and those of other machines."""
    waiting = {left.run_id for left in outbox.list_left()}
    for run in runs.list_open(opened):
        if run.run_id in waiting:
            continue  # its outbox says how it ended
        owner = processes.read(run.tags.get(Tag.PROCESS))
        is_alive = _is_locked(run) or (processes.is_alive(owner) if owner else _is_elsewhere(opened))
        if is_alive:
            continue
        age = time.time() - runs.find_last_sign(opened, run) / 1000
        if is_alive is None and age < SILENT_SEC:
            where = f"process {owner.pid} on {owner.host}" if owner else "a process that it does not name"
            yield Finding(
                Remedy.none,
                f"{run.label} is RUNNING by {where}, which cannot be seen from here; its last sign is {show_age(age)} "
                f"old, and after {show_age(SILENT_SEC)} it counts as abandoned",
            )
            continue
        which = f"process {owner.pid} on {owner.host}" if owner else "its process"
        reason = "has ended" if is_alive is False else f"has given no sign for {show_age(age)}"
        yield Finding(
            Remedy.fix,
            f"{run.label} is RUNNING, but {which} {reason}: mark it KILLED (the same command resumes it)",
            partial(_abandon, opened, run),
        )


def _abandon(opened: MlflowStore, run: RunRecord) -> str:
    if _is_locked(run) or not runs.abandon(opened, run, why=_WHY):
        return f"{run.label} is in use again"
    return f"{run.label} is KILLED"


def _is_locked(run: RunRecord) -> bool:
    """Return whether a process of this home holds the run, whichever version of this package it is of."""
    fingerprint, study = run.tags.get(Tag.FINGERPRINT, ""), run.tags.get(Tag.STUDY)
    if study is not None:
        return locks.is_held(lock_of_study(study))
    return fingerprint.isalnum() and locks.is_held(lock_of(fingerprint))


def _is_elsewhere(opened: MlflowStore) -> bool | None:
    """Return what is known of a run without a process: in a local store its lock would be held, and was not."""
    return False if store.database_of(opened.uri) is not None else None


def find_deleted(opened: MlflowStore) -> Iterator[Finding]:
    """Yield the runs that were deleted and that nothing needs any more; only where this process opens the database."""
    if store.is_server(opened.uri):
        return
    needed = _list_needed(opened)
    deleted = [run for run in deletion.list_deleted(opened) if run.kind != Kind.PROMOTION]
    for run in deleted:
        if run.run_id in needed:
            yield Finding(Remedy.none, f"{run.label} was deleted, but {needed[run.run_id]} needs it: it is spared")
            continue
        yield Finding(
            Remedy.prune,
            f"{run.label} was deleted: remove it with its files, for good",
            partial(_delete, opened, run),
        )


def _delete(opened: MlflowStore, run: RunRecord) -> str:
    needed = _list_needed(opened)
    if run.run_id in needed:
        return f"{run.label} is needed by {needed[run.run_id]}"
    is_gone = deletion.delete_for_good(opened, run.run_id)
    return f"{run.label} is gone" if is_gone else f"{run.label} was restored"


def _list_needed(opened: MlflowStore) -> dict[str, str]:
    """Return what needs a run, by its id: a registered version, an entry of a ledger, or a run that is not deleted."""
    needed: dict[str, str] = {}
    for ledger in list_ledgers(opened):
        for run_id in ledger.list_run_ids():
            needed[run_id] = f"the {ledger.experiment}"
    for model in list_models(opened):
        for one in opened.reader.list_versions(name=model.name):
            needed[one.run_id] = f"version {one.version} of {one.name}"
    is_child = Condition("tag", Tag.PARENT, "IS NOT NULL", None)
    for run in runs.search_stored(opened, runs.experiment_ids(opened), {}, conditions=[is_child]):
        needed.setdefault(run.tags[Tag.PARENT], f"its child {run.name}")
    return needed
