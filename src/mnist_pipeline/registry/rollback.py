"""The story of a rollback: an earlier champion becomes the champion again if it still predicts as it did."""

from mnist_pipeline.registry import evidence, gates, promote
from mnist_pipeline.registry.changes import alone, carry_out, opened
from mnist_pipeline.registry.ledger import Decision, Entry, Outcome, previous_champion
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.settings import RegistryConfig
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking import find_run, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.registered_models import CHAMPION

NO_VERSION = "none"


def rollback(store: MlflowStore, where: RegistryConfig, *, to: int | str | None, reason: str) -> Decision:
    """Make an earlier champion the champion again, or remove a damaged one.

    Args:
        store: Holds the registry.
        where: The registered model.
        to: An earlier champion's version; None: the previous one, or the last one if there is no champion any more;
            `NO_VERSION`: remove the champion.
        reason: For the ledger.

    Raises:
        UserError: There is no such earlier champion, its test data is not available here, or the champion to remove
            is not damaged.
    """
    registry = Registry(store, where.model_name)
    with alone(registry, wait=where.wait):
        champion = registry.model.named(CHAMPION)
        if to == NO_VERSION:
            return _give_up(registry, champion, reason)
        assert not isinstance(to, str)
        target = _find_target(registry, registry.ledger.entries(), champion, to)
        run = find_run.find_run_of_version(store, registry.model.run_of(target))
        problems, logged = evidence.examine(store, run, registry.model.model_folder(target), where.data)
        verdicts = [gates.whole(problems)]
        if logged is not None:
            again, labels = logged.reloaded.probabilities, logged.test.labels
            verdicts.append(gates.same_predictions(logged.predictions, again, labels))
        is_passed = all(gate.is_passed for gate in verdicts)
        with opened(registry, champion=champion) as entry_id:
            decision = Decision(
                outcome=Outcome.rolled_back if is_passed else Outcome.refused,
                champion=champion,
                champion_run_id=(registry.model.run_id(champion) or "") if champion else "",
                version=target,
                run_id=run.run_id,
                reason=reason,
                gates=tuple(verdicts),
            )
            carry_out(registry, decision, entry_id)
    return decision


def _give_up(registry: Registry, champion: int | None, reason: str) -> Decision:
    if champion is None:
        raise UserError(f"--to {NO_VERSION}: {registry.name} has no champion")
    damage = promote.find_damage(registry, champion)
    if not damage:
        raise UserError(
            f"--to {NO_VERSION}: version {champion} of {registry.name} is not damaged, so only a better model may "
            "replace it: promote one, or roll back to an earlier champion with --to VERSION"
        )
    with opened(registry, champion=champion) as entry_id:
        decision = Decision(
            outcome=Outcome.rolled_back,
            champion=champion,
            champion_run_id=registry.model.run_id(champion) or "",
            version=None,
            run_id="",
            reason=f"{reason} (removed: {damage})",
        )
        carry_out(registry, decision, entry_id)
    return decision


def _find_target(registry: Registry, entries: list[Entry], champion: int | None, to: int | None) -> int:
    # A version counts only if it still belongs to the run that was promoted: the registered model may have been deleted
    # since, and the number used again.
    versions = registry.model.versions()
    moves = [entry for entry in entries if entry.has_moved_champion and entry.version in versions]
    earlier = sorted(
        {
            entry.version
            for entry in moves
            if entry.version not in (None, champion)
            and registry.model.run_id(entry.version) == entry.run_id
            and runs.get(registry.store, entry.run_id) is not None  # mlflow gc may have removed it
        }
    )
    if not earlier:
        raise UserError(
            f"{registry.name} has no earlier champion whose run is left: promote another run "
            f"({command('promote', 'RUN')}); a damaged champion can be replaced by its own "
            f"run, trained again and promoted, or removed with --to {NO_VERSION}"
        )
    known = " or ".join(map(str, earlier))
    if to is not None:
        if to == champion:
            raise UserError(f"--to {to}: it is the champion already; earlier ones are {known}")
        if to not in earlier:
            raise UserError(f"--to {to}: it was never the champion; promote its run, or give {known}")
        return to
    if champion is None:
        last = next(entry.version for entry in reversed(moves) if entry.version in earlier)
        assert last is not None
        return last
    target = previous_champion(entries, champion)
    if target not in earlier:
        raise UserError(
            f"version {champion} of {registry.name} has no previous champion that is left: give --to {known}"
        )
    return target
