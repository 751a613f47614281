"""Ledgers whose entries cannot be read, are left open, or disagree with the alias."""

from collections.abc import Iterator
from functools import partial

from mnist_pipeline.doctor.finding import Finding, Remedy
from mnist_pipeline.registry import changes
from mnist_pipeline.registry.ledger import champion_of, describe_open, list_ledgers
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.registered_models import CHAMPION


def find(opened: MlflowStore) -> Iterator[Finding]:
    """Yield what is wrong with the ledgers of all registered models."""
    for ledger in list_ledgers(opened):
        registry = Registry(opened, ledger.model_name)
        for entry_id, problem in ledger.list_damaged():
            yield Finding(
                Remedy.fix,
                f"{problem.partition(';')[0]}: set it aside, so that it does not count; it stays as it is otherwise",
                partial(ledger.set_aside, entry_id),
            )
        if ledger.list_damaged():
            continue  # nothing can be said about the others before these are set aside
        entries = ledger.entries()
        left, is_open = changes.list_left_over(registry), [entry for entry in entries if entry.is_open]
        champion, alias = champion_of(entries), registry.model.named(CHAMPION)
        if len(left) < len(is_open):
            yield Finding(Remedy.none, describe_open(is_open[0]))
        elif left:
            what = f"the {ledger.experiment} has {len(left)} open entries whose commands have ended: close them"
            yield Finding(Remedy.fix, what, partial(_settle, registry))
        elif champion != alias:
            what = (
                f"the champion of {ledger.model_name} is version {alias}, but by its ledger version {champion}: record "
                "that the alias was moved by another program"
            )
            yield Finding(Remedy.fix, what, partial(_settle, registry))


def _settle(registry: Registry) -> str:
    with changes.alone(registry, wait=False):  # it settles what it finds
        return f"the {registry.ledger.experiment} agrees with the alias, and no entry is open"
