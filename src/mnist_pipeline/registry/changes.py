"""How the champion is changed: one at a time, through the ledger, so that a kill leaves nothing that cannot be told.

An entry is opened, the decision written into it, the alias moved (one write of MLflow's), the entry closed. Whoever
comes next settles what a killed command left: it makes the ledger say what the alias says, and never moves the alias.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mnist_pipeline import paths
from mnist_pipeline.errors import Terminated, UserError
from mnist_pipeline.mlflow_store import MlflowStore
from mnist_pipeline.ownership import own
from mnist_pipeline.registry import candidates
from mnist_pipeline.registry.comparison import Budget, on_split
from mnist_pipeline.registry.ledger import Decision, Entry, Ledger, Outcome, champion_of, fixed_alpha, require_turn
from mnist_pipeline.registry.versions import CHALLENGER, CHAMPION, RegisteredModel
from mnist_pipeline.tracking import PastRun

_POLL_SEC = 1.0

_log = logging.getLogger(__name__)


class Registry:
    """A registered model and its ledger, in one store."""

    def __init__(self, store: MlflowStore, name: str) -> None:
        self.store = store
        self.name = name
        self.model = RegisteredModel(store, name)
        self.ledger = Ledger(store, name)

    def champion_run(self) -> PastRun | None:
        """Return the champion's run; None where there is no champion.

        Raises:
            UserError: The run is gone for good.
        """
        champion = self.model.named(CHAMPION)
        return None if champion is None else candidates.find_run(self.store, self.model.run_of(champion))

    def budget(self, test_digest: str, *, alpha: float) -> Budget:
        """Return what comparisons on a test split may still spend."""
        spent = [entry.spent for entry in self.ledger.entries() if entry.spent]
        return Budget(alpha=alpha, spent=on_split(spent, test_digest))


@dataclass(frozen=True)
class History:
    """The ledger, and what comparisons on the champion's test split may still spend.

    Attributes:
        entries: The oldest first.
        champion: Version that the alias names.
        budget: None where there was no promotion yet.
        num_images: Of the test split.
        num_scored_runs: How many runs were ever scored on it.
    """

    name: str
    entries: list[Entry]
    champion: int | None
    budget: Budget | None = None
    num_images: int = 0
    num_scored_runs: int = 0


def read_history(registry: Registry) -> History:
    """Return the ledger as it is now."""
    entries, champion = registry.ledger.entries(), registry.model.named(CHAMPION)
    run, alpha = registry.champion_run(), fixed_alpha(entries)
    test_digest = run.tags.get("data.test_digest") if run else None
    predictions = candidates.read_predictions(run) if run else None
    if alpha is None or test_digest is None or predictions is None:
        return History(registry.name, entries, champion)
    return History(
        name=registry.name,
        entries=entries,
        champion=champion,
        budget=registry.budget(test_digest, alpha=alpha),
        num_images=len(predictions),
        num_scored_runs=candidates.count_scored(registry.store, test_digest),
    )


@contextlib.contextmanager
def alone(registry: Registry, *, wait: bool) -> Iterator[None]:
    """Be the only command of this machine at the registered model, and find ledger and alias agreeing.

    Raises:
        UserError: Another command is at it and `wait` is false.
    """
    which = hashlib.sha256(f"{registry.store.uri} {registry.name}".encode()).hexdigest()[:12]
    lock = paths.mlruns_dir() / "locks" / f"{registry.name}-{which}.lock"
    with own(lock, what=f"the registered model {registry.name}", wait=wait, next_step="(as an override)"):
        settle(registry)
        yield


@contextlib.contextmanager
def opened(registry: Registry, *, champion: int | None, wait: bool) -> Iterator[str]:
    """Open an entry and have it the oldest open one; yield its id. Should anything go wrong, the entry says so.

    The lock of `alone` knows nothing of other machines, so the entry is read back: of two, the older goes on. Since
    MLflow has no compare-and-set for aliases, a moment remains in which both could see themselves alone: while an entry
    of the other is being written, and is not there yet.

    Raises:
        UserError: Another machine is at it and `wait` is false, or it has changed the champion meanwhile.
    """
    entry_id = registry.ledger.open()
    try:
        _take_turn(registry, entry_id, wait=wait)
        if registry.model.named(CHAMPION) != champion:
            raise UserError(f"the champion of {registry.name} was changed meanwhile: run the same command again")
        yield entry_id
    except BaseException as error:
        reasons = {KeyboardInterrupt: "Ctrl-C", Terminated: "SIGTERM"}
        with contextlib.suppress(Exception):  # the store itself may be what failed; the first error is the one to hear
            _close(registry, entry_id, reason=reasons.get(type(error), f"{type(error).__name__}: {error}"))
        raise


def carry_out(registry: Registry, decision: Decision, entry_id: str) -> None:
    """Write the decision, move the alias if it says so, and close the entry: in this order."""
    require_turn(registry.ledger.entries(), entry_id)
    registry.ledger.decide(entry_id, decision)
    if decision.outcome.moves_champion:
        registry.model.point(CHAMPION, decision.version)
    _finish(registry, entry_id)


def settle(registry: Registry) -> None:
    """Close the entries that killed commands left open, and enter what was done to the alias by hand."""
    for entry in registry.ledger.entries():
        if entry.is_open and entry.is_abandoned:
            _close(registry, entry.id, reason="The command was killed before it moved the champion.")
    entries = registry.ledger.entries()
    if any(entry.is_open for entry in entries):
        return  # of another machine, which is at work
    ledger, alias = champion_of(entries), registry.model.named(CHAMPION)
    if alias != ledger:
        _log.warning("the alias champion was moved outside: the ledger said %s, it is %s", ledger, alias)
        entry_id = registry.ledger.open()
        reason = "The alias was found changed, by hand or by another program."
        run_id = "" if alias is None else registry.model.run_of(alias)
        registry.ledger.decide(entry_id, Decision(Outcome.moved, ledger, alias, run_id, reason))
        _finish(registry, entry_id)


def _close(registry: Registry, entry_id: str, *, reason: str) -> None:
    """Close an entry whose command did not: by its own decision where that was carried out, else as interrupted."""
    entry = registry.ledger.read(entry_id)
    if not entry.is_open:
        return
    has_nothing_to_do = entry.outcome is Outcome.refused
    is_done = entry.outcome is not None and registry.model.named(CHAMPION) == entry.version
    if has_nothing_to_do or is_done:
        _finish(registry, entry_id)
    else:
        _log.warning("a promotion or rollback by %s on %s is closed as interrupted", entry.user, entry.host)
        registry.ledger.interrupt(entry_id, reason=reason)


def _finish(registry: Registry, entry_id: str) -> None:
    """Close an entry whose decision is carried out, and let MLflow's pages say what it was. May be done twice."""
    champion = registry.model.named(CHAMPION)
    if champion is not None and registry.model.named(CHALLENGER) == champion:
        registry.model.point(CHALLENGER, None)
    _describe(registry, registry.ledger.read(entry_id), champion)
    registry.ledger.close(entry_id)


def _describe(registry: Registry, entry: Entry, champion: int | None) -> None:
    assert entry.outcome is not None
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.opened_ms / 1000))
    said = f"{entry.outcome.value} on {day} by {entry.user}: {entry.reason}"
    tags = {"decision": entry.outcome.value, "ledger.entry": entry.id, "decided": day}
    if entry.version is not None:
        compared = {"p_value": f"{entry.spent.comparison.p_value:.3g}"} if entry.spent else {}
        registry.model.describe_version(entry.version, f"**{said}**", tags={**tags, **compared})
    which = "none" if champion is None else f"version {champion}"
    text = (
        f"Champion: **{which}**. The last decision: version {entry.version} {said} All decisions: the runs of the "
        f"experiment {registry.ledger.experiment}, or `mnist-pipeline history`."
    )
    alpha = {"promote.alpha": str(entry.alpha)} if entry.alpha else {}
    registry.model.describe(text, tags={"decided": day, **alpha})


def _take_turn(registry: Registry, entry_id: str, *, wait: bool) -> None:
    has_said = False
    while True:
        try:
            require_turn(registry.ledger.entries(), entry_id)
            return
        except UserError as error:
            if not wait:
                raise
            if not has_said:
                _log.info("wait      %s", error)
            has_said = True
        time.sleep(_POLL_SEC)
