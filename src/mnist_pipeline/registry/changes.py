"""How the champion is changed: one command at a time, through the ledger, so that every kill can be settled.

A command opens an entry, writes its decision into it, moves the alias (one write of MLflow), and closes the entry. The
next command settles what a killed one left: it makes the ledger agree with the alias, and never moves the alias.
"""

import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mnist_pipeline.registry import evidence
from mnist_pipeline.registry.comparison import Budget, on_split
from mnist_pipeline.registry.ledger import (
    Decision,
    Entry,
    Ledger,
    Outcome,
    champion_of,
    describe_open,
    fixed_alpha,
    require_turn,
)
from mnist_pipeline.system import files, paths
from mnist_pipeline.system.errors import GoneError, Terminated, UserError
from mnist_pipeline.system.locks import hold
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking import find_run, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord, Tag
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION, RegisteredModel, link_to_card

_POLL_SEC = 1.0
_MAX_REASON_LENGTH = 4000  # a description in MLflow holds 5,000 characters

_log = logging.getLogger(__name__)


class Registry:
    """A registered model and its ledger, in one store."""

    def __init__(self, store: MlflowStore, name: str) -> None:
        self.store = store
        self.name = name
        self.model = RegisteredModel(store, name)
        self.ledger = Ledger(store, name)

    def champion_run(self) -> RunRecord | None:
        """Return the champion's run; None if there is no champion.

        Raises:
            UserError: The run is gone for good.
        """
        champion = self.model.named(CHAMPION)
        return None if champion is None else find_run.find_run_of_version(self.store, self.model.run_of(champion))

    def budget(self, test_digest: str, *, alpha: float) -> Budget:
        """Return the budget that comparisons on a test split have left."""
        spent = [entry.spent for entry in self.ledger.entries() if entry.spent]
        return Budget(alpha=alpha, spent=on_split(spent, test_digest))


@dataclass(frozen=True)
class History:
    """The ledger, and the budget that comparisons on the champion's test split have left.

    Attributes:
        entries: The oldest first.
        champion: Version that the alias names.
        budget: None before the first promotion.
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
    """Return the current ledger."""
    entries, champion = registry.ledger.entries(), registry.model.named(CHAMPION)
    alpha, run = fixed_alpha(entries), None
    with contextlib.suppress(UserError):  # its run is gone, but the ledger can still be read
        run = registry.champion_run()
    test_digest = run.tags.get(Tag.TEST_DIGEST) if run else None
    predictions = evidence.find_predictions(run) if run else None
    if alpha is None or test_digest is None or predictions is None:
        return History(registry.name, entries, champion)
    return History(
        name=registry.name,
        entries=entries,
        champion=champion,
        budget=registry.budget(test_digest, alpha=alpha),
        num_images=len(predictions),
        num_scored_runs=runs.count_scored(registry.store, {Tag.TEST_DIGEST: test_digest}),
    )


@contextlib.contextmanager
def alone(registry: Registry, *, wait: bool) -> Iterator[None]:
    """Hold the registered model exclusively, with ledger and alias in agreement.

    On one machine a lock ensures that. Commands on other machines show only as open entries.

    Raises:
        UserError: Another command holds it and `wait` is false.
    """
    which = hashlib.sha256(f"{registry.store.uri} {registry.name}".encode()).hexdigest()[:12]
    lock = paths.mlruns_dir() / "locks" / f"{registry.name}-{which}.lock"
    paths.require_writable(lock.parent)
    with hold(lock, what=f"the registered model {registry.name}", wait=wait, next_step=""):
        registry.ledger.lock_id = _identify(lock)
        has_said = False
        while others := settle(registry):
            if not wait:
                raise UserError(describe_open(others[0]))
            if not has_said:
                _log.info("wait      %s", describe_open(others[0]))
            has_said = True
            time.sleep(_POLL_SEC)
        yield


def _identify(lock: Path) -> str:
    """Return the unique id of a lock. An open entry with this id is from a command that died while it held the lock."""
    file = lock.with_suffix(".id")
    if not file.exists():
        with files.output(file) as unfinished:
            unfinished.write_text(uuid.uuid4().hex)
    return file.read_text()


@contextlib.contextmanager
def opened(registry: Registry, *, champion: int | None) -> Iterator[str]:
    """Open an entry, require it to be the oldest open one, and yield its id. If anything fails, the entry says so.

    The entry is read back: of two machines, the one with the older entry continues. MLflow has no compare-and-set for
    aliases, so one gap remains: each may miss the other's entry while it is being written.

    Raises:
        UserError: Another machine was faster, or has changed the champion in the meantime.
    """
    entry_id = registry.ledger.open()
    try:
        require_turn(registry.ledger.entries(), entry_id)
        _require_champion(registry, champion)
        yield entry_id
    except BaseException as error:
        reasons = {KeyboardInterrupt: "Ctrl-C", Terminated: "SIGTERM"}
        with contextlib.suppress(Exception):  # the store itself may have failed; the first error is the one to report
            _settle_entry(registry, entry_id, reason=reasons.get(type(error), hide(f"{type(error).__name__}: {error}")))
        raise


def carry_out(registry: Registry, decision: Decision, entry_id: str) -> None:
    """Write the decision, move the alias if the decision says so, and close the entry, in this order."""
    require_turn(registry.ledger.entries(), entry_id)
    _require_champion(registry, decision.champion)
    registry.ledger.decide(entry_id, decision)
    if decision.outcome.moves_champion:
        registry.model.point(CHAMPION, decision.version)
    _finish(registry, entry_id)


def settle(registry: Registry) -> list[Entry]:
    """Close the entries that killed commands left open, and record a change of the alias that was made by hand.

    Returns:
        The open entries of other machines; while there are any, no change is recorded.
    """
    for entry in registry.ledger.entries():
        if registry.ledger.is_abandoned(entry):
            _settle_entry(registry, entry.id, reason="The command was killed before it moved the champion.")
    entries = registry.ledger.entries()
    others = [entry for entry in entries if entry.is_open]
    ledger, alias = champion_of(entries), registry.model.named(CHAMPION)
    if not others and alias != ledger:
        _log.warning("the alias champion was moved by another program: from version %s to %s", ledger, alias)
        decision = Decision(
            outcome=Outcome.moved,
            champion=ledger,
            champion_run_id="",
            version=alias,
            run_id="" if alias is None else registry.model.run_id(alias) or "",
            reason="The alias was changed by hand or by another program.",
        )
        entry_id = registry.ledger.open()
        registry.ledger.decide(entry_id, decision)
        _finish(registry, entry_id)
    return others


def _settle_entry(registry: Registry, entry_id: str, *, reason: str) -> None:
    """Close an entry that its command left open: as decided if the decision was carried out, else as interrupted."""
    entry = registry.ledger.read(entry_id)
    if not entry.is_open:
        return
    has_nothing_to_do = entry.outcome is Outcome.refused
    is_done = entry.outcome is not None and registry.model.named(CHAMPION) == entry.version
    if has_nothing_to_do or is_done:
        _finish(registry, entry_id)
    else:
        _log.warning("an interrupted promotion or rollback by %s on %s is closed", entry.user, entry.host)
        _tag_runs(registry)
        registry.ledger.interrupt(entry_id, reason=reason)


def _finish(registry: Registry, entry_id: str) -> None:
    """Close an entry whose decision is carried out, and describe it on MLflow's pages. Can be repeated."""
    champion = registry.model.named(CHAMPION)
    if champion is not None and registry.model.named(CHALLENGER) == champion:
        registry.model.point(CHALLENGER, None)
    try:
        _tag_runs(registry)
        _describe(registry, registry.ledger.read(entry_id), champion)
    except GoneError:
        _log.warning("the version or its registered model was deleted: only the ledger has the decision")
    registry.ledger.close(entry_id)


def _tag_runs(registry: Registry) -> None:
    """Tag the runs of champion and challenger with `model@alias`, and no other run."""
    for alias in (CHAMPION, CHALLENGER):
        version = registry.model.named(alias)
        run_id = None if version is None else registry.model.run_id(version)
        runs.tag_only(registry.store, run_id, Tag.ALIAS, f"{registry.name}@{alias}")


def _describe(registry: Registry, entry: Entry, champion: int | None) -> None:
    assert entry.outcome is not None
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.opened_ms / 1000))
    said = f"{entry.outcome.value} on {day} by {markdown(entry.user)}: {markdown(entry.reason)[:_MAX_REASON_LENGTH]}"
    tags = {"decision": entry.outcome.value, "ledger.entry": entry.id, "decided": day}
    if entry.version is not None:
        compared = {"p_value": f"{entry.spent.comparison.p_value:.3g}"} if entry.spent else {}
        registry.model.describe_version(
            entry.version, f"{said[0].upper()}{said[1:]}{_link_card(registry, entry.run_id)}", tags={**tags, **compared}
        )
    text = (
        f"Champion: **{_name(champion)}**. The last decision: {_name(entry.version)} {said} All decisions: the runs of "
        f"the experiment {markdown(registry.ledger.experiment)}, or `mnist-pipeline history`."
    )
    alpha = {"promote.alpha": str(entry.alpha)} if entry.alpha else {}
    registry.model.describe(text, tags={"decided": day, **alpha})


def _name(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _link_card(registry: Registry, run_id: str) -> str:
    run = runs.get(registry.store, run_id) if run_id else None
    if run is None or not runs.has_report(registry.store, run_id):
        return ""
    return link_to_card(runs.report_page(run.experiment_id, run_id))


def _require_champion(registry: Registry, champion: int | None) -> None:
    if registry.model.named(CHAMPION) != champion:
        raise UserError(f"the champion of {registry.name} was changed in the meantime: run the same command again")
