"""The history of a registered model, for people to read."""

import contextlib
from dataclasses import dataclass

from mnist_pipeline.registry import evidence
from mnist_pipeline.registry.comparison import Budget
from mnist_pipeline.registry.ledger import Entry, budget_of, fixed_alpha
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.record import Tag
from mnist_pipeline.tracking.registered_models import CHAMPION


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
        budget=budget_of(entries, test_digest, alpha=alpha),
        num_images=len(predictions),
        num_scored_runs=runs.count_scored(registry.store, {Tag.TEST_DIGEST: test_digest}),
    )
