"""The terminal output of the commands on the registry."""

import time
from collections.abc import Sequence

from mnist_pipeline.registry.gates import Gate
from mnist_pipeline.registry.history import History
from mnist_pipeline.registry.ledger import Decision, Outcome
from mnist_pipeline.registry.promote import Promotion
from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.terminal import print_table
from mnist_pipeline.system.console import print_fields


def print_promotion(promotion: Promotion) -> None:
    """Print each gate with its figure, bound and verdict, and the result."""
    if promotion.gates:
        print_gates(promotion.gates)
    champion = _version(promotion.champion)
    match promotion.decision:
        case None if promotion.gates:
            result = "a dry run: nothing was written, and no champion compared with"
        case None:
            result = f"already the champion: version {promotion.version}"
        case Decision(outcome=Outcome.promoted):
            result = f"promoted: version {promotion.version} is the champion (before: {champion})"
        case _:
            result = (
                f"refused: the champion stays {champion}" if promotion.champion else "refused: there is no champion"
            )
    print_fields(
        {
            "registered model": promotion.registry.name,
            "run": f"{promotion.candidate.run.name} ({promotion.candidate.run.run_id})",
            "version": str(promotion.version or "not registered"),
            "result": result,
            **({"because": promotion.decision.reason} if promotion.decision else {}),
            "address": promotion.registry.model.address,
        }
    )


def print_gates(gates: Sequence[Gate]) -> None:
    """Print a table of verdicts."""
    rows = tuple((gate.name, gate.figure, gate.bound, gate.verdict) for gate in gates)
    table = Table("Gates", ("gate", "figure", "bound", "verdict"), rows, (False,) * 4)
    print_table(table, styles=[{True: "", False: "red", None: "dim"}[gate.is_passed] for gate in gates])


def print_budget(history: History) -> None:
    """Print how much of the test split's alpha is spent, what the next comparison could detect, and the scored runs."""
    budget, num_images = history.budget, history.num_images
    if budget is None:
        return
    lines = {
        "comparisons": f"{len(budget.spent)} on this test split: {budget.sum_spent:.3g} of alpha {budget.alpha:g}",
        "next level": f"{budget.next_level:.2g}",
        "to pass next time": f"at least {_points(budget.detectable(), num_images)} more right, if none gets worse",
    }
    num_lost = budget.spent[-1].comparison.num_lost if budget.spent else 0
    if num_lost:
        least = _points(budget.detectable(num_lost=num_lost), num_images)
        lines[""] = f"at least {least} more right, if {num_lost} get worse again"
    lines["scored runs"] = (
        f"{history.num_scored_runs} on this test split so far; alpha does not cover choosing among them by their scores"
    )
    print_fields(lines)


def print_rollback(decision: Decision, name: str) -> None:
    """Print the check of the version, and the result."""
    if decision.gates:
        print_gates(decision.gates)
    before, after = _version(decision.champion), _version(decision.version)
    is_done = decision.outcome is Outcome.rolled_back
    now = "there is no champion" if decision.version is None else f"{after} is the champion"
    result = f"rolled back: {now} (before: {before})" if is_done else f"refused: it stays {before}"
    print_fields({"registered model": name, "result": result, "reason": decision.reason})


def print_history(history: History) -> None:
    """Print the ledger, the oldest first."""
    rows = tuple(
        (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.opened_ms / 1000)),
            f"{entry.user} on {entry.host}",
            entry.outcome.value if entry.outcome and not entry.is_open else "open",
            _number(entry.champion),
            _number(entry.version),
            entry.reason,
        )
        for entry in history.entries
    )
    headings = ("when", "who", "decision", "from", "to", "why")
    numeric = (False, False, False, True, True, False)
    print_table(Table("Decisions", headings, rows, numeric), most_rows=None)
    print_fields({"registered model": history.name, "champion": _version(history.champion)})
    print_budget(history)


def _points(num_images: int, of: int) -> str:
    return f"{num_images} images ({100 * num_images / of:.2g} points)"


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _number(version: int | None) -> str:
    return "" if version is None else str(version)
