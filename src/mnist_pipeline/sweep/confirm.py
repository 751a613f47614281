"""The confirmation: whether the best trials are better than the baseline, or the best by chance. Pure functions.

The best score of many trials on one validation split is partly chance. So the best trials are trained again on fresh
pairs of seeds, the same for all, and compared with the baseline pair by pair. After some pairs there is a look at the
differences: candidates whose case is clear are trained no further, and the others get more pairs.

Looking several times gives chance several opportunities, so each look spends a part of `ALPHA`: that of look k is
proportional to t(k)^2 - t(k-1)^2, where t is the share of the pairs that the look has (the power family of Kim and
DeMets, 1987, Biometrika 74). The parts are added up over looks and candidates (Bonferroni), so every interval of every
look holds with a probability of at least 1 - ALPHA, whenever the confirmation stops.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from mnist_pipeline.stats import find_interval
from mnist_pipeline.sweep.settings import ConfirmConfig, Direction

ALPHA = 0.05
"""The probability that any interval of any look misses the true mean difference."""
POWER = 0.8
"""The probability with which a gain is to be found, for `find_detectable_gain`."""
LEAST_CHANCE = 0.05
"""A candidate that becomes better with a smaller probability is trained no further."""


@dataclass(frozen=True)
class Pair:
    """The seeds of one training; every configuration is trained with the same pairs."""

    train_seed: int
    split_seed: int


class Outcome(enum.Enum):
    """What a look has found about a candidate."""

    better = "better than the baseline"
    no_gain = "without a gain worth having"
    hopeless = "unlikely to become better"
    undecided = "undecided"


@dataclass(frozen=True)
class Comparison:
    """A candidate's values less the baseline's, pair by pair, at one look.

    Attributes:
        name: Of the candidate.
        num_pairs: That were compared.
        mean: Of the differences.
        low, high: The confidence interval of the true mean difference.
        spread: Standard deviation of the differences.
    """

    name: str
    num_pairs: int
    mean: float
    low: float
    high: float
    spread: float
    outcome: Outcome

    def describe(self) -> str:
        """Return the candidate with its difference, and what was found."""
        return f"{self.name} {self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f}) {self.outcome.value}"


@dataclass(frozen=True)
class Design:
    """When the candidates are compared with the baseline, and what each look spends.

    Attributes:
        looks: The numbers of pairs, in ascending order.
        levels: The probability that one candidate's interval at this look misses the true difference.
        min_gain: The least difference that is worth having, as a positive number.
    """

    looks: tuple[int, ...]
    levels: tuple[float, ...]
    min_gain: float
    direction: Direction

    def compare(self, name: str, values: Sequence[float], baseline: Sequence[float], *, look: int) -> Comparison:
        """Compare a candidate with the baseline by the paired t interval (Student, 1908, Biometrika 6).

        Args:
            name: Of the candidate.
            values: Its values, one per pair.
            baseline: The baseline's, in the order of the same pairs.
            look: Counted from 0.
        """
        differences = np.subtract(values, baseline)
        mean, low, high = find_interval(differences, alpha=self.levels[look])
        return Comparison(
            name=name,
            num_pairs=len(differences),
            mean=mean,
            low=low,
            high=high,
            spread=float(differences.std(ddof=1)),
            outcome=self._judge(differences, low, high, look=look),
        )

    def _judge(self, differences: npt.NDArray[np.float64], low: float, high: float, *, look: int) -> Outcome:
        is_larger_better = self.direction is Direction.maximize
        gains = differences if is_larger_better else -differences
        least, most = (low, high) if is_larger_better else (-high, -low)
        if least > 0:
            return Outcome.better
        if most < self.min_gain:
            return Outcome.no_gain
        is_last = look == len(self.looks) - 1
        if not is_last and find_chance(gains, num_pairs=self.looks[-1], alpha=self.levels[-1]) < LEAST_CHANCE:
            return Outcome.hopeless
        return Outcome.undecided

    def find_detectable_gain(self, spread: float) -> float:
        """Return about which true difference the last look finds with the probability `POWER`.

        Args:
            spread: Standard deviation of the differences.
        """
        num_pairs = self.looks[-1]
        quantiles = special.stdtrit(num_pairs - 1, np.array([1 - self.levels[-1] / 2, POWER]))
        return float(quantiles.sum()) * spread / math.sqrt(num_pairs)


@dataclass(frozen=True)
class Verdict:
    """The result of the confirmation.

    Attributes:
        comparisons: Of each candidate, at its last look.
        looks: Of all candidates, look by look.
        winner: The name of a candidate; None: the baseline stays.
        confidence: Of all intervals of all looks together, 0..1.
        detectable_gain: As `Design.find_detectable_gain` has it for the spread that was seen; None without candidates.
    """

    comparisons: tuple[Comparison, ...]
    looks: tuple[tuple[Comparison, ...], ...]
    winner: str | None
    confidence: float
    detectable_gain: float | None

    def describe(self) -> str:
        """Return the winner, and why."""
        if self.winner is None:
            return "the baseline: no interval excludes 0"
        lead = next(one for one in self.comparisons if one.name == self.winner)
        return f"{self.winner}: {lead.mean:+.4f} ({lead.low:+.4f} to {lead.high:+.4f}) against the baseline"


def plan_looks(config: ConfirmConfig, *, num_candidates: int, direction: Direction) -> Design:
    """Return the design: a look after every `num_seeds` pairs, the last one after `max_seeds`.

    Args:
        config: How many pairs there are.
        num_candidates: That are compared with the baseline.
        direction: Whether larger or smaller is better.
    """
    looks = (*range(config.num_seeds, config.max_seeds, config.num_seeds), config.max_seeds)
    shares = np.diff([0.0, *((num_pairs / config.max_seeds) ** 2 for num_pairs in looks)])
    levels = tuple(float(share) * ALPHA / max(num_candidates, 1) for share in shares)
    return Design(looks=looks, levels=levels, min_gain=config.min_gain, direction=direction)


def find_chance(gains: npt.NDArray[np.float64], *, num_pairs: int, alpha: float) -> float:
    """Return how likely a candidate is to be better after `num_pairs` pairs, by what its first pairs say.

    The predictive power under a flat prior (Spiegelhalter, Freedman and Blackburn, 1986, Controlled Clinical Trials 7):
    the mean of all pairs less that of the first n has a t distribution with the scale spread * sqrt(1/n - 1/num_pairs).

    Args:
        gains: Of the first pairs, positive where the candidate is better.
        num_pairs: Of the last look.
        alpha: Of its interval.
    """
    num_seen, mean, spread = len(gains), float(gains.mean()), float(gains.std(ddof=1))
    if spread == 0:
        return float(mean > 0)
    needed = float(special.stdtrit(num_pairs - 1, 1 - alpha / 2)) * spread / math.sqrt(num_pairs)
    scale = spread * math.sqrt(1 / num_seen - 1 / num_pairs)
    return float(special.stdtr(num_seen - 1, (mean - needed) / scale))


def conclude(looks: Sequence[Sequence[Comparison]], design: Design) -> Verdict:
    """Return the verdict: the best of the better candidates, or the baseline.

    Args:
        looks: The comparisons of every look; a candidate whose case is clear is in no further one.
        design: Of the looks.
    """
    last: Mapping[str, Comparison] = {one.name: one for look in looks for one in look}
    sign = 1 if design.direction is Direction.maximize else -1
    better = [one for one in last.values() if one.outcome is Outcome.better]
    spread = math.sqrt(float(np.mean([one.spread**2 for one in last.values()]))) if last else None
    return Verdict(
        comparisons=tuple(last.values()),
        looks=tuple(map(tuple, looks)),
        winner=max(better, key=lambda one: sign * one.mean).name if better else None,
        confidence=1 - ALPHA,
        detectable_gain=None if spread is None else design.find_detectable_gain(spread),
    )


def draw_pairs(seed: int, *, num_pairs: int, taken: Pair) -> list[Pair]:
    """Return pairs of seeds, a pure function of the study's seed; none shares a seed with the study's own runs."""
    pairs: list[Pair] = []
    words = iter(np.random.SeedSequence((seed, 0x636F6E66)).generate_state(4 * num_pairs + 4))
    while len(pairs) < num_pairs:
        pair = Pair(train_seed=int(next(words)) % 2**31, split_seed=int(next(words)) % 2**31)
        if pair.train_seed != taken.train_seed and pair.split_seed != taken.split_seed:
            pairs.append(pair)
    return pairs
