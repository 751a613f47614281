"""The ledger: every decision about the champion, each an MLflow run of kind promotion in a separate experiment.

An entry is opened before anything is decided (it is the intent), gets its decision in one write, and is closed after
the alias was moved. So the entry and the alias alone show what a killed command left.
"""

import enum
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnist_pipeline.registry.comparison import Budget, Comparison, Spent, on_split
from mnist_pipeline.registry.gates import Gate
from mnist_pipeline.system.errors import GoneError, UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking import entries, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore, host
from mnist_pipeline.tracking.record import Artifact, Kind, RunRecord, Tag, show_tables

ABANDONED_AFTER_SEC = 600.0
"""After this time an open entry of another machine counts as abandoned; a promotion takes seconds."""

_SUFFIX = " ledger"
_SET_ASIDE = "ledger.set_aside"
_MAX_NUMBER = 1_000_000  # of comparisons on a test split


class Outcome(enum.Enum):
    """The outcome of an entry."""

    promoted = "promoted"
    refused = "refused"
    rolled_back = "rolled back"
    moved = "moved outside"  # by hand, or by another program: found afterwards
    interrupted = "interrupted"

    @property
    def moves_champion(self) -> bool:
        """Whether the alias names another version afterwards."""
        return self in (Outcome.promoted, Outcome.rolled_back, Outcome.moved)


@dataclass(frozen=True)
class Decision:
    """A decision, before it is carried out.

    Attributes:
        champion: Version that the alias named.
        champion_run_id: Of that version's run.
        version: Version that is to become the champion; None: there will be no champion.
        run_id: Of the version's run.
        spent: The comparison that it is based on, whether made now or before.
        is_new: Whether the comparison was made now.
    """

    outcome: Outcome
    champion: int | None
    champion_run_id: str
    version: int | None
    run_id: str
    reason: str
    gates: tuple[Gate, ...] = ()
    alpha: float | None = None
    spent: Spent | None = None
    is_new: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        is_open: Whether the command that wrote it has not finished.
        spent: The comparison that was made for it; None if there was none, or an earlier one was reused.
        opened_ms: In milliseconds of Unix time.
    """

    id: str
    opened_ms: int
    is_open: bool
    user: str
    host: str
    lock_id: str
    outcome: Outcome | None
    champion: int | None
    champion_run_id: str
    version: int | None
    run_id: str
    reason: str
    alpha: float | None
    spent: Spent | None

    @property
    def has_moved_champion(self) -> bool:
        """Whether this entry says that the alias was moved."""
        return not self.is_open and self.outcome is not None and self.outcome.moves_champion


class Ledger:
    """The ledger of a registered model. An entry that is deleted in MLflow is hidden there, but not here."""

    def __init__(self, store: MlflowStore, model_name: str) -> None:
        self._store = store
        self.model_name = model_name
        self.experiment = f"{model_name}{_SUFFIX}"
        self.lock_id = ""  # of the lock that this process holds; see `changes.alone`

    def entries(self) -> list[Entry]:
        """Return every entry, the oldest first, in the same order for every reader."""
        return sorted(map(_read, self._list_runs()), key=lambda entry: (entry.opened_ms, entry.id))

    def list_damaged(self) -> list[tuple[str, str]]:
        """Return the ids of the entries that cannot be read, and what is wrong with each."""
        damaged = []
        for run in self._list_runs():
            try:
                _read(run)
            except UserError as error:
                damaged.append((run.run_id, str(error)))
        return damaged

    def set_aside(self, entry_id: str) -> str:
        """Let an entry that cannot be read no longer count; say so."""
        entries.write_entry(self._store, entry_id, tags={_SET_ASIDE: "true"})
        entries.close_entry(self._store, entry_id, status="KILLED")
        return f"the ledger's entry {entry_id} does not count any more"

    def list_run_ids(self) -> set[str]:
        """Return the ids of the runs that its entries name, and of the entries; those that cannot be read too."""
        found = self._list_runs(with_set_aside=True)
        named = {run.tags.get(key, "") for run in found for key in ("ledger.run_id", "ledger.from_run_id")}
        return {*named, *(run.run_id for run in found)}

    def _list_runs(self, *, with_set_aside: bool = False) -> list[RunRecord]:
        found = entries.list_entries(self._store, self.experiment, Kind.PROMOTION)
        return [run for run in found if with_set_aside or _SET_ASIDE not in run.tags]

    def read(self, entry_id: str) -> Entry:
        """Return one entry.

        Raises:
            GoneError: It was deleted for good.
        """
        run = runs.get(self._store, entry_id)
        if run is None:
            raise GoneError(f"the ledger's entry {entry_id} was deleted for good: run the same command again")
        return _read(run)

    def is_abandoned(self, entry: Entry) -> bool:
        """Return whether its command has certainly ended, because this one holds its lock, or has timed out."""
        is_old = time.time() - entry.opened_ms / 1000 > ABANDONED_AFTER_SEC
        return entry.is_open and (is_old or entry.lock_id == self.lock_id)

    def open(self) -> str:
        """Open an entry that is newer than all others, whatever this machine's clock says; return its id."""
        newest_ms = max((entry.opened_ms for entry in self.entries()), default=0)
        tags = {
            Tag.KIND: Kind.PROMOTION,
            "registered_model": self.model_name,
            "ledger.host": host(),
            "ledger.lock_id": self.lock_id,
        }
        started_ms = max(time.time_ns() // 1_000_000, newest_ms + 1)
        return entries.open_entry(self._store, self.experiment, name="open", tags=tags, started_ms=started_ms)

    def decide(self, entry_id: str, decision: Decision) -> None:
        """Write the decision into an open entry: the gates first, then everything else in one write."""
        gates = [
            {"gate": gate.name, "figure": gate.figure, "bound": gate.bound, "verdict": gate.verdict}
            for gate in decision.gates
        ]
        shown = {}
        if gates:
            # Not by MLflow's log_table: called again, it would append.
            table = {"columns": list(gates[0]), "data": [list(gate.values()) for gate in gates]}
            entries.attach_text(self._store, entry_id, path=Artifact.GATES_TABLE, text=json.dumps(table))
            shown = show_tables(Artifact.GATES_TABLE)
        tags = {
            **shown,
            "ledger.outcome": decision.outcome.value,
            "ledger.from": _text(decision.champion),
            "ledger.from_run_id": decision.champion_run_id,
            "ledger.to": _text(decision.version),
            "ledger.run_id": decision.run_id,
            "ledger.reason": decision.reason,
            "mlflow.runName": _title(decision),
            Tag.DESCRIPTION: _describe(decision, gates),
        }
        if decision.spent and decision.is_new:
            tags["ledger.comparison"] = _write_spent(decision.spent)
        metrics, params = _figures(decision)
        entries.write_entry(self._store, entry_id, tags=tags, metrics=metrics, params=params)

    def close(self, entry_id: str) -> None:
        """Mark the decision as carried out."""
        entries.close_entry(self._store, entry_id, status="FINISHED")

    def interrupt(self, entry_id: str, *, reason: str) -> None:
        """Mark the entry as interrupted: its command made no decision, or did not carry it out."""
        tags = {"ledger.outcome": Outcome.interrupted.value, "ledger.reason": reason, "mlflow.runName": "interrupted"}
        entries.write_entry(self._store, entry_id, tags=tags)
        entries.close_entry(self._store, entry_id, status="KILLED")


def list_ledgers(store: MlflowStore) -> list[Ledger]:
    """Return the ledgers of all registered models."""
    names = runs.experiment_names(store)
    return [Ledger(store, name.removesuffix(_SUFFIX)) for name in sorted(names) if name.endswith(_SUFFIX)]


def champion_of(entries: Sequence[Entry]) -> int | None:
    """Return the version that is the champion by the ledger."""
    return next((entry.version for entry in reversed(entries) if entry.has_moved_champion), None)


def previous_champion(entries: Sequence[Entry], champion: int) -> int | None:
    """Return the version that was the champion before `champion` was last promoted."""
    for entry in reversed(entries):
        if entry.has_moved_champion and entry.outcome is not Outcome.rolled_back and entry.version == champion:
            return entry.champion
    return None


def rolled_back(entries: Sequence[Entry]) -> set[str]:
    """Return the ids of the runs whose versions were rolled back from, and not promoted again since."""
    found: set[str] = set()
    for entry in entries:
        if entry.has_moved_champion:
            found.discard(entry.run_id)
            if entry.outcome is Outcome.rolled_back:
                found.add(entry.champion_run_id)
    return found


def fixed_alpha(entries: Sequence[Entry]) -> float | None:
    """Return the alpha that the first promotion or comparison fixed."""
    return next(
        (entry.alpha for entry in entries if entry.alpha and (entry.outcome is Outcome.promoted or entry.spent)), None
    )


def budget_of(entries: Sequence[Entry], test_digest: str, *, alpha: float) -> Budget:
    """Return the budget that comparisons on a test split have left."""
    return Budget(alpha=alpha, spent=on_split([entry.spent for entry in entries if entry.spent], test_digest))


def require_turn(entries: Sequence[Entry], entry_id: str) -> None:
    """Require an entry to be the oldest open one.

    Raises:
        UserError: Another entry is older, or another machine closed this one as abandoned.
    """
    open_entries = [entry for entry in entries if entry.is_open]
    if entry_id not in [entry.id for entry in open_entries]:
        raise UserError("another machine closed this command's entry in the ledger: run the same command again")
    if open_entries[0].id != entry_id:
        raise UserError(describe_open(open_entries[0]))


def describe_open(entry: Entry) -> str:
    """Return one line about an open entry, and what to do."""
    since = time.strftime("%H:%M:%S", time.localtime(entry.opened_ms / 1000))
    return (
        f"another promotion or rollback is in progress since {since}, by {entry.user} on {entry.host}: "
        f"wait for it with wait=true (it counts as abandoned after {ABANDONED_AFTER_SEC / 60:.0f} minutes)"
    )


def _read(run: RunRecord) -> Entry:
    try:
        return _parse(run)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(
            f"the ledger's entry {run.run_id} cannot be read ({' '.join(str(error).split())}): its tags were "
            f"edited, or written by a newer version of mnist-pipeline; {command('doctor', '--fix')} sets it aside"
        ) from error


def _parse(run: RunRecord) -> Entry:
    tags = run.tags
    outcome = tags.get("ledger.outcome")
    alpha = run.params.get("promote.alpha")
    return Entry(
        id=run.run_id,
        opened_ms=run.started_ms,
        is_open=run.status == "RUNNING",
        user=tags.get(Tag.USER, "unknown"),
        host=tags.get("ledger.host", "unknown"),
        lock_id=tags.get("ledger.lock_id", ""),
        outcome=Outcome(outcome) if outcome else None,
        champion=_number(tags.get("ledger.from")),
        champion_run_id=tags.get("ledger.from_run_id", ""),
        version=_number(tags.get("ledger.to")),
        run_id=tags.get("ledger.run_id", ""),
        reason=tags.get("ledger.reason", ""),
        alpha=_share(alpha) if alpha else None,
        spent=_read_spent(tags["ledger.comparison"]) if "ledger.comparison" in tags else None,
    )


def _write_spent(spent: Spent) -> str:
    return json.dumps({**vars(spent), "comparison": vars(spent.comparison), "p_value": spent.comparison.p_value})


def _read_spent(text: str) -> Spent:
    values = json.loads(text)
    counts = values["comparison"]
    spent = Spent(
        champion=str(values["champion"]),
        challenger=str(values["challenger"]),
        test_digest=str(values["test_digest"]),
        number=int(values["number"]),
        level=_share(values["level"]),
        alpha=_share(values["alpha"]),
        comparison=Comparison(*(int(counts[name]) for name in ("num_images", "num_gained", "num_lost"))),
    )
    compared = spent.comparison
    if not 1 <= spent.number <= _MAX_NUMBER:
        raise ValueError(f"comparison {spent.number}")
    num_differing = compared.num_gained + compared.num_lost
    if min(compared.num_gained, compared.num_lost) < 0 or max(num_differing, 1) > compared.num_images:
        raise ValueError(f"{compared.num_gained} gained and {compared.num_lost} lost of {compared.num_images}")
    return spent


def _share(value: float | str) -> float:
    share = float(value)
    if not 0 < share < 1:
        raise ValueError(f"{share} is not between 0 and 1")
    return share


def _text(version: int | None) -> str:
    return "none" if version is None else str(version)


def _number(text: str | None) -> int | None:
    return None if text in (None, "none") else int(str(text))


def _title(decision: Decision) -> str:
    return f"{decision.outcome.value}: version {_text(decision.version)}"


def _figures(decision: Decision) -> tuple[dict[str, float], dict[str, str]]:
    params = {"promote.alpha": str(decision.alpha)} if decision.alpha else {}
    if not decision.spent:
        return {}, params
    compared = decision.spent.comparison
    metrics = {
        "comparison/number": decision.spent.number,
        "comparison/level": decision.spent.level,
        "comparison/p_value": compared.p_value,
        "comparison/difference": compared.difference,
        "comparison/num_gained": compared.num_gained,
        "comparison/num_lost": compared.num_lost,
    }
    return metrics, params


def _describe(decision: Decision, gates: Sequence[Mapping[str, str]]) -> str:
    lines = [f"**{_title(decision)}** (champion before: {_text(decision.champion)}). {markdown(decision.reason)}"]
    if gates:
        lines += ["", "| gate | figure | bound | verdict |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(map(markdown, gate.values()))} |" for gate in gates]
    return "\n".join(lines)
