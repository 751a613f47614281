"""The story of an examination: what is found, and what is done about it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from mnist_pipeline.doctor import database, ledgers, leftovers, pending, runs, studies
from mnist_pipeline.doctor.finding import Finding, Remedy
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.mlflow_store import MlflowStore


@dataclass
class Tally:
    """How the findings ended.

    Attributes:
        num_to_fix: That are left to `--fix`.
        num_to_prune: That are left to `--prune`.
        num_by_hand: That are left to a person, failed remedies among them.
    """

    num_to_fix: int = 0
    num_to_prune: int = 0
    num_by_hand: int = 0


def examine_database(uri: str) -> Iterator[Finding]:
    """Yield what keeps MLflow from opening the store."""
    return database.find(uri)


def examine(opened: MlflowStore) -> Iterator[Finding]:
    """Yield what is found in an open store and beside it; what a live process holds is passed over."""
    yield from pending.find(opened)
    yield from runs.find_abandoned(opened)
    yield from ledgers.find(opened)
    yield from studies.find(opened)
    yield from leftovers.find_caches()
    yield from leftovers.find_files()
    yield from leftovers.find_checkpoints(opened)
    yield from runs.find_deleted(opened)


def treat(
    findings: Iterator[Finding], remedies: Collection[Remedy], tally: Tally, *, show: Callable[[str, str], None]
) -> None:
    """Act on the findings that have one of the remedies, and show each: its state, and the line about it."""
    for finding in findings:
        if finding.act is None or finding.remedy not in remedies:
            tally.num_to_fix += finding.remedy is Remedy.fix
            tally.num_to_prune += finding.remedy is Remedy.prune
            tally.num_by_hand += finding.remedy is Remedy.person
            show(finding.remedy.value, finding.what)
            continue
        try:
            show("done", finding.act())
        except UserError as error:
            tally.num_by_hand += 1
            show("failed", f"{finding.what.partition(': ')[0]}: {error}")
