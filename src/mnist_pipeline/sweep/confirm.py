"""The confirmation: whether the best trials are better than the baseline, or the best by chance. Pure functions.

The best score of many trials on one validation split is partly chance. So the best trials are trained again on fresh
pairs of seeds, the same for all, and compared with the baseline pair by pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_pipeline.stats import find_interval
from mnist_pipeline.sweep.settings import Direction

ALPHA = 0.05


@dataclass(frozen=True)
class Pair:
    """The seeds of one training; every configuration is trained with the same pairs."""

    train_seed: int
    split_seed: int


@dataclass(frozen=True)
class Comparison:
    """A candidate's values less the baseline's, pair by pair.

    Attributes:
        name: Of the candidate.
        mean: Of the differences.
        low, high: The confidence interval of the true mean difference.
    """

    name: str
    mean: float
    low: float
    high: float

    def is_better(self, direction: Direction) -> bool:
        """Return whether the whole interval is on the better side of 0."""
        return self.low > 0 if direction is Direction.maximize else self.high < 0


@dataclass(frozen=True)
class Verdict:
    """The result of the confirmation.

    Attributes:
        winner: The name of a candidate; None: the baseline stays.
        confidence: Of all intervals together, 0..1.
    """

    comparisons: tuple[Comparison, ...]
    winner: str | None
    confidence: float

    def describe(self) -> str:
        """Return the winner, and why."""
        if self.winner is None:
            return "the baseline: no interval excludes 0"
        lead = next(one for one in self.comparisons if one.name == self.winner)
        return f"{self.winner}: {lead.mean:+.4f} ({lead.low:+.4f} to {lead.high:+.4f}) against the baseline"


def draw_pairs(seed: int, *, num_pairs: int, taken: Pair) -> list[Pair]:
    """Return pairs of seeds, a pure function of the study's seed; none shares a seed with the study's own runs."""
    pairs: list[Pair] = []
    words = iter(np.random.SeedSequence((seed, 0x636F6E66)).generate_state(4 * num_pairs + 4))
    while len(pairs) < num_pairs:
        pair = Pair(train_seed=int(next(words)) % 2**31, split_seed=int(next(words)) % 2**31)
        if pair.train_seed != taken.train_seed and pair.split_seed != taken.split_seed:
            pairs.append(pair)
    return pairs


def compare(
    baseline: Sequence[float], candidates: Mapping[str, Sequence[float]], *, direction: Direction, alpha: float = ALPHA
) -> Verdict:
    """Compare candidates with the baseline by paired t intervals (Student, 1908), with a Bonferroni correction.

    Args:
        baseline: Its values, one per pair.
        candidates: Theirs, by name, in the order of the same pairs.
        direction: Whether larger or smaller is better.
        alpha: Probability that any interval misses the true mean difference.
    """
    each = alpha / max(len(candidates), 1)
    comparisons = tuple(
        Comparison(name, *find_interval(np.subtract(values, baseline), alpha=each))
        for name, values in candidates.items()
    )
    sign = 1 if direction is Direction.maximize else -1
    better = [comparison for comparison in comparisons if comparison.is_better(direction)]
    winner = max(better, key=lambda comparison: sign * comparison.mean).name if better else None
    return Verdict(comparisons=comparisons, winner=winner, confidence=1 - alpha)
