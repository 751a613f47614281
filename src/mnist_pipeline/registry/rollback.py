"""The way back: an earlier champion becomes the champion again, once it has shown that it still predicts as it did."""

from mnist_pipeline.errors import UserError
from mnist_pipeline.mlflow_store import MlflowStore
from mnist_pipeline.registry import candidates, gates
from mnist_pipeline.registry.changes import Registry, alone, carry_out, opened
from mnist_pipeline.registry.ledger import Decision, Entry, Outcome, previous_champion
from mnist_pipeline.registry.settings import RegistryConfig
from mnist_pipeline.registry.versions import CHAMPION


def rollback(store: MlflowStore, where: RegistryConfig, *, to: int | None, reason: str) -> Decision:
    """Make an earlier champion the champion again.

    Args:
        store: Where the registry is.
        where: The registered model.
        to: A version that was the champion before; None: the one that the champion took over from.
        reason: For the ledger.

    Raises:
        UserError: There is no champion, no such earlier champion, or its test data cannot be had here.
    """
    registry = Registry(store, where.model_name)
    with alone(registry, wait=where.wait):
        champion = registry.model.named(CHAMPION)
        target = _find_target(registry, registry.ledger.entries(), champion, to)
        with opened(registry, champion=champion, wait=where.wait) as entry_id:
            run = candidates.find_run(store, registry.model.run_of(target))
            evidence = candidates.read_evidence(store, run)
            checked = candidates.check(evidence, run, f"models:/{registry.name}/{target}")
            verdicts = [gates.whole(checked.missing)]
            if checked.reloaded and checked.test and evidence.predictions is not None:
                again, labels = checked.reloaded.probabilities, checked.test.labels
                verdicts.append(gates.same_predictions(evidence.predictions, again, labels))
            is_passed = all(gate.is_passed for gate in verdicts)
            decision = Decision(
                outcome=Outcome.rolled_back if is_passed else Outcome.refused,
                champion=champion,
                version=target,
                run_id=run.run_id,
                reason=reason,
                gates=tuple(verdicts),
            )
            carry_out(registry, decision, entry_id)
    return decision


def _find_target(registry: Registry, entries: list[Entry], champion: int | None, to: int | None) -> int:
    if champion is None:
        raise UserError(f"{registry.name} has no champion: promote a run first (mnist-pipeline promote)")
    champions = sorted({entry.version for entry in entries if entry.has_moved_champion and entry.version is not None})
    earlier = [version for version in champions if version != champion]
    if not earlier:
        raise UserError(f"version {champion} of {registry.name} is its only champion so far: there is no way back")
    target = previous_champion(entries, champion) if to is None else to
    known = " or ".join(map(str, earlier))
    if target is None:
        raise UserError(f"version {champion} of {registry.name} took over from none: give --to {known}")
    if target == champion:
        raise UserError(f"--to {target}: it is the champion; the earlier ones are {known}")
    if target not in earlier:
        raise UserError(f"--to {target}: it never was the champion; promote its run, or give {known}")
    return target
