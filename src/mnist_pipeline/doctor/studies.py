"""Studies that are damaged, unfinished, or disagree with the runs in MLflow."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mnist_pipeline.doctor.finding import Finding, Remedy
from mnist_pipeline.sweep import studies
from mnist_pipeline.sweep.storage import check_journal, list_journals, lock_of_study, repair_journal
from mnist_pipeline.sweep.studies import Summary
from mnist_pipeline.system import locks
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Kind, RunRecord, Tag


def find(opened: MlflowStore) -> Iterator[Finding]:
    """Yield what is wrong with the journals, and with the sweeps in the store."""
    sweeps = {run.tags.get(Tag.RESUME_ID, ""): run for run in _list_sweeps(opened)}
    known: set[str] = set()
    for journal in list_journals():
        try:
            check_journal(journal, is_ours=True)
            found = studies.read_journal(journal)
        except UserError as error:
            yield _damaged(journal, str(error))
            continue
        except Exception as error:  # Optuna passes on whatever a line causes that is an entry, but a wrong one
            yield Finding(Remedy.person, f"{journal} cannot be read ({type(error).__name__}: {error}): move it away")
            continue
        for study in found:
            known.add(study.id or "")
            yield from _examine(study, sweeps.get(study.id or ""))
    for study_id, run in sweeps.items():
        if study_id not in known and not run.is_finished and run.status != "RUNNING":
            what = f"{run.label} is {run.status}, and its study is not in mlruns/optuna: its command begins a new study"
            yield Finding(Remedy.none, what)


def _list_sweeps(opened: MlflowStore) -> Iterator[RunRecord]:
    return runs.search(opened, runs.experiment_ids(opened), {Tag.KIND: Kind.SWEEP})


def _damaged(journal: Path, problem: str) -> Finding:
    what = f"{problem.partition(': ')[0]}: cut it before the damage, and keep what it was beside it"
    return Finding(Remedy.fix, what, partial(repair_journal, journal))


def _examine(study: Summary, run: RunRecord | None) -> Iterator[Finding]:
    if locks.is_held(lock_of_study(study.name)):
        return
    if run is None:
        what = f"the study {study.name} has no run in this store: it was deleted there, or the sweep used another store"
        yield Finding(Remedy.none, what)
    if study.num_unfinished:
        what = f"the study {study.name} has {study.num_unfinished} unfinished trials: the same command resumes them"
        yield Finding(Remedy.none, what)
