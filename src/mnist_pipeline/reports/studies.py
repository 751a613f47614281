"""The studies that sweeps made, in one table. Pure functions of values."""

from collections.abc import Sequence

from mnist_pipeline.reports.page import Table
from mnist_pipeline.reports.values import when
from mnist_pipeline.tracking.record import Metric, RunRecord, Tag

_HEADINGS = ("study", "data", "started", "status", "trials", "best", "winner", "test")


def tabulate(sweeps: Sequence[RunRecord]) -> Table:
    """Return one row for each sweep, the newest first: its trials, the best of them, and what was confirmed.

    Args:
        sweeps: The parents of studies.
    """
    newest_first = sorted(sweeps, key=lambda run: run.started_ms, reverse=True)
    numeric = (False, False, False, False, True, True, False, True)
    return Table("Studies", _HEADINGS, tuple(map(_row, newest_first)), numeric)


def _row(sweep: RunRecord) -> tuple[str, ...]:
    counts = [sweep.metrics.get(f"sweep/num_{state}") for state in ("complete", "pruned", "failed")]
    num_trials = sum(int(count) for count in counts if count is not None)
    best = next((value for key, value in sweep.metrics.items() if key.startswith("sweep/best_")), None)
    tested = sweep.metrics.get(Metric.WINNER_TEST_ACCURACY)
    return (
        sweep.tags.get(Tag.STUDY, sweep.name),
        sweep.tags.get(Tag.DATA_REQUESTED, ""),
        when(sweep.started_ms),
        sweep.status,
        str(num_trials) if num_trials else "",
        "" if best is None else f"{best:.4f}",
        sweep.tags.get(Tag.WINNER, ""),
        "" if tested is None else f"{tested:.4f}",
    )
