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
from pathlib import Path

from mnist_pipeline.registry.descriptions import describe, tag_runs
from mnist_pipeline.registry.ledger import (
    Decision,
    Entry,
    Outcome,
    champion_of,
    describe_open,
    require_turn,
)
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.system import files, paths
from mnist_pipeline.system.errors import GoneError, Terminated, UserError
from mnist_pipeline.system.locks import hold, is_held
from mnist_pipeline.system.secrets import hide
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION

_POLL_SEC = 1.0

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(registry: Registry, *, wait: bool) -> Iterator[None]:
    """Hold the registered model exclusively, with ledger and alias in agreement.

    On one machine a lock ensures that. Commands on other machines show only as open entries.

    Raises:
        UserError: Another command holds it and `wait` is false.
    """
    lock = _lock_of(registry)
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


def list_left_over(registry: Registry) -> list[Entry]:
    """Return the open entries whose commands have ended; `alone` closes them."""
    lock = _lock_of(registry)
    if is_held(lock):
        return []
    registry.ledger.lock_id = _identify(lock) if lock.with_suffix(".id").exists() else ""
    return [entry for entry in registry.ledger.entries() if registry.ledger.is_abandoned(entry)]


def _lock_of(registry: Registry) -> Path:
    which = hashlib.sha256(f"{registry.store.uri} {registry.name}".encode()).hexdigest()[:12]
    return paths.mlruns_dir() / "locks" / f"{registry.name}-{which}.lock"


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
    entries = registry.ledger.entries()
    abandoned = [entry for entry in entries if registry.ledger.is_abandoned(entry)]
    for entry in abandoned:
        _log.warning("an interrupted promotion or rollback by %s on %s is closed", entry.user, entry.host)
        _settle_entry(registry, entry.id, reason="The command was killed before it moved the champion.")
    if abandoned:
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
        tag_runs(registry)
        registry.ledger.interrupt(entry_id, reason=reason)


def _finish(registry: Registry, entry_id: str) -> None:
    """Close an entry whose decision is carried out, and describe it on MLflow's pages. Can be repeated."""
    champion = registry.model.named(CHAMPION)
    if champion is not None and registry.model.named(CHALLENGER) == champion:
        registry.model.point(CHALLENGER, None)
    try:
        tag_runs(registry)
        describe(registry, registry.ledger.read(entry_id), champion)
    except GoneError:
        _log.warning("the version or its registered model was deleted: only the ledger has the decision")
    registry.ledger.close(entry_id)


def _require_champion(registry: Registry, champion: int | None) -> None:
    if registry.model.named(CHAMPION) != champion:
        raise UserError(f"the champion of {registry.name} was changed in the meantime: run the same command again")
