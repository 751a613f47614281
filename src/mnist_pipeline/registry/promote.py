"""The story of a promotion: a candidate, its evidence, the gates, the decision, and only then the alias."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.registry import candidates, evidence, gates
from mnist_pipeline.registry.candidates import Candidate
from mnist_pipeline.registry.changes import alone, carry_out, opened
from mnist_pipeline.registry.comparison import Budget, Spent, compare
from mnist_pipeline.registry.gates import Gate
from mnist_pipeline.registry.ledger import Decision, Outcome, budget_of, fixed_alpha, rolled_back
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.registry.settings import PromoteConfig, RegistryConfig, registered_name
from mnist_pipeline.system.errors import ConfigError, GoneError, UserError
from mnist_pipeline.tracking import find_run, integrity, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord, Tag, class_names
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION

_ABSOLUTE = ("data", "whole", "predictions", "signature", "test accuracy", "size")
_RELATIVE = ("same data", "recall", "superiority")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion.

    Attributes:
        decision: None if the run's model is the champion already, or for a dry run.
        version: Of the run's model; None if it is not registered.
        champion: Version that the alias named before.
    """

    candidate: Candidate
    registry: Registry
    gates: tuple[Gate, ...]
    decision: Decision | None
    version: int | None
    champion: int | None


def promote(
    store: MlflowStore, where: RegistryConfig, bounds: PromoteConfig, *, named: str | None, is_dry_run: bool
) -> Promotion:
    """Make the model of a run the champion, if it passes the gates.

    Args:
        store: Holds the runs and the registry.
        where: The registered model; a named run determines its own.
        bounds: Of the gates.
        named: What the user typed; None: the best run by validation accuracy that was not rolled back from.
        is_dry_run: Show the absolute gates only, and write nothing.

    Raises:
        UserError: There is no such run, its test data is not available, or another promotion is in progress.
        ConfigError: `promote.alpha` differs from the fixed one.
    """
    given = None if named is None else candidates.find_typed(store, named, model_name=where.model_name)
    data_name = given.run.params.get("data.name", where.data_name) if given else where.data_name
    registry = Registry(store, registered_name(data_name))

    def choose() -> Candidate:
        chosen = given or candidates.find_best(
            store,
            where.tracking.experiment,
            champion=registry.champion_run(),
            data_name=data_name,
            shunned=rolled_back(registry.ledger.entries()),
        )
        _log.info("candidate %s (%s): %s", chosen.run.name, chosen.run.run_id, chosen.why)
        return chosen

    if is_dry_run:
        candidate = choose()
        absolute, _ = judge(candidate, store, bounds, where.data)
        return _undecided(registry, candidate, absolute)
    with alone(registry, wait=where.wait):
        candidate = choose()
        champion = registry.model.named(CHAMPION)
        past = None if champion is None else find_run.find_run_of_version(store, registry.model.run_of(champion))
        if past is not None and past.run_id == candidate.run.run_id:
            if damage := find_damage(registry, champion):
                raise UserError(f"{past.name} is the champion, and damaged ({damage}): {candidates.replace_champion()}")
            return _undecided(registry, candidate, ())
        return _decide(registry, candidate, bounds, where.data, champion=champion, past=past)


def _undecided(registry: Registry, candidate: Candidate, verdicts: tuple[Gate, ...]) -> Promotion:
    return Promotion(
        candidate=candidate,
        registry=registry,
        gates=verdicts,
        decision=None,
        version=registry.model.version_of(candidate.run.run_id, candidate.model.model_id),
        champion=registry.model.named(CHAMPION),
    )


def _decide(
    registry: Registry,
    candidate: Candidate,
    bounds: PromoteConfig,
    data: DataConfig,
    *,
    champion: int | None,
    past: RunRecord | None,
) -> Promotion:
    run, model = candidate.run, registry.model
    alpha = fixed_alpha(registry.ledger.entries())
    if alpha is not None and bounds.alpha != alpha:
        raise ConfigError(f"promote.alpha={bounds.alpha}: it is fixed at {alpha} for {registry.name}")
    verdicts, predictions = judge(candidate, registry.store, bounds, data)
    with opened(registry, champion=champion) as entry_id:
        version = model.register(run.run_id, candidate.model.model_id)
        model.point(CHALLENGER, version)
        contest = Contest()
        if past is not None:
            worthy = predictions if _are_passed(verdicts) else None
            entries = registry.ledger.entries()
            budget = budget_of(entries, run.tags.get(Tag.TEST_DIGEST, ""), alpha=bounds.alpha)
            damage = find_damage(registry, champion)
            contest = challenge(past, run, worthy, bounds, budget, damage=damage)
        verdicts = (*verdicts, *contest.gates)
        decision = Decision(
            outcome=Outcome.promoted if _are_passed(verdicts) else Outcome.refused,
            champion=champion,
            champion_run_id=past.run_id if past else "",
            version=version,
            run_id=run.run_id,
            reason=_explain(verdicts, contest, champion),
            gates=verdicts,
            alpha=bounds.alpha,
            spent=contest.spent,
            is_new=contest.is_new,
        )
        carry_out(registry, decision, entry_id)
    return Promotion(candidate, registry, verdicts, decision, version, champion)


def judge(
    candidate: Candidate, store: MlflowStore, bounds: PromoteConfig, data: DataConfig
) -> tuple[tuple[Gate, ...], pd.DataFrame | None]:
    """Return the verdicts that need no champion, and the run's predictions; the reloaded model predicts the test split.

    Raises:
        UserError: The test split is not available here.
    """
    run = candidate.run
    found = [gates.data_as_asked(run.tags)]
    if not _are_passed(found):
        return gates.complete(found, _ABSOLUTE), None
    problems, logged = evidence.examine(store, run, runs.open_model_folder(store, candidate.model), data)
    found.append(gates.whole(problems))
    if logged is None:
        return gates.complete(found, _ABSOLUTE), None
    found += [
        gates.same_predictions(logged.predictions, logged.reloaded.probabilities, logged.test.labels),
        gates.signature(
            logged.reloaded.signature,
            image_shape=logged.test.images.shape[1:],
            num_classes=len(class_names(logged.predictions)),
        ),
        gates.test_accuracy(logged.predictions, minimum=bounds.min_test_accuracy),
        gates.model_size(logged.reloaded.num_bytes, maximum=bounds.max_model_bytes),
    ]
    return tuple(found), logged.predictions


@dataclass(frozen=True)
class Contest:
    """The gates against the champion.

    Attributes:
        spent: The comparison that decided; None if it was not reached.
        is_new: Whether it was made now, not earlier for the same pair.
        replaces: The damage of the champion, if the challenger is the identical result.
    """

    gates: tuple[Gate, ...] = ()
    spent: Spent | None = None
    is_new: bool = False
    replaces: str = ""


def challenge(
    past: RunRecord,
    run: RunRecord,
    predictions: pd.DataFrame | None,
    bounds: PromoteConfig,
    budget: Budget,
    *,
    damage: str,
) -> Contest:
    """Return the verdicts of a challenger against the champion.

    Only a pair that reaches the comparison spends of the budget, and only once. The identical result replaces a
    damaged champion without a comparison, because nothing but the files changes.

    Args:
        past: The champion's run.
        run: The challenger's run.
        predictions: The challenger's; None if an absolute gate refused it.
        bounds: Of the gates.
        budget: Of the test split.
        damage: How the champion's files differ from the logged ones; empty if they do not.

    Raises:
        UserError: The champion's predictions are gone.
    """
    if predictions is None:
        return Contest(gates.complete([], _RELATIVE))
    found = [gates.same_data(run.tags, past.tags)]
    if not _are_passed(found):
        return Contest(gates.complete(found, _RELATIVE))
    before = evidence.find_predictions(past)
    if damage and is_twin(past, run, before, predictions):
        return Contest((*found, gates.same_result("recall"), gates.same_result("superiority")), replaces=damage)
    if before is None or not before["label"].equals(predictions["label"]):
        raise UserError(
            f"the predictions of the champion's run {past.run_id} cannot be read, so nothing can be compared with "
            f"them: {candidates.replace_champion()}"
        )
    found.append(gates.recalls(before, predictions, max_drop=bounds.max_recall_drop))
    if not _are_passed(found):
        return Contest(gates.complete(found, _RELATIVE))
    known = budget.find(champion=past.run_id, challenger=run.run_id)
    spent = known or budget.spend(
        compare(before, predictions),
        champion=past.run_id,
        challenger=run.run_id,
        test_digest=run.tags[Tag.TEST_DIGEST],
    )
    return Contest((*found, gates.superiority(spent)), spent, is_new=known is None)


def find_damage(registry: Registry, champion: int | None) -> str:
    """Return how the files of the champion's run and model differ from the logged ones; empty if they do not."""
    if champion is None:
        return ""
    try:
        run = find_run.find_run_of_version(registry.store, registry.model.run_of(champion))
        damage = integrity.find_damage(registry.store, run.run_id)
        seals = evidence.find_seals(run)
        if not damage and seals is not None:  # the version may refer to other files than its run
            damage = integrity.find_model_damage(seals, registry.model.model_folder(champion))
        return "; ".join(damage)
    except GoneError as error:
        return str(error)


def is_twin(past: RunRecord, run: RunRecord, before: pd.DataFrame | None, predictions: pd.DataFrame) -> bool:
    """Return whether two runs have the identical result, by digest and by the predictions that can be read."""
    digest = past.tags.get(Tag.RESULT_DIGEST)
    return (
        digest is not None
        and digest == run.tags.get(Tag.RESULT_DIGEST)
        and (before is None or before.equals(predictions))
    )


def _are_passed(verdicts: Sequence[Gate]) -> bool:
    return all(gate.is_passed for gate in verdicts)


def _explain(verdicts: Sequence[Gate], contest: Contest, champion: int | None) -> str:
    refusing = next((gate for gate in verdicts if gate.is_passed is False), None)
    again = f" (the verdict of comparison {contest.spent.number})" if contest.spent and not contest.is_new else ""
    if refusing:
        return f"{refusing.name}: {refusing.figure}; required: {refusing.bound}{again}."
    if contest.replaces:
        return f"The same result as version {champion}, whose files are damaged ({contest.replaces})."
    if contest.spent is None:
        return "There is no champion to compare with; it passed the absolute gates."
    compared = contest.spent.comparison
    return (
        f"{100 * compared.difference:+.2f} points of test accuracy against version {champion}, "
        f"p = {compared.p_value:.2g} at level {contest.spent.level:.2g}{again}."
    )
