"""The paired comparison of challenger and champion, and the budget of comparisons on a test split. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import special

from mnist_pipeline.stats import least_gain, level, mcnemar


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        num_gained: Images that only the challenger classifies correctly.
        num_lost: Images that only the champion classifies correctly.
    """

    num_images: int
    num_gained: int
    num_lost: int

    @property
    def difference(self) -> float:
        """Accuracy of the challenger less that of the champion, -1..1."""
        return (self.num_gained - self.num_lost) / self.num_images

    @property
    def p_value(self) -> float:
        """Probability of at least as many gained images if the challenger were no better."""
        return mcnemar(num_gained=self.num_gained, num_lost=self.num_lost)

    @property
    def two_sided_p_value(self) -> float:
        """Probability of a difference at least as large, either way, if both were equally good: twice one tail."""
        more, fewer = max(self.num_gained, self.num_lost), min(self.num_gained, self.num_lost)
        return min(1.0, 2 * mcnemar(num_gained=more, num_lost=fewer))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval that contains the true difference with probability `confidence`.

        Half an image is added to each of the four counts, so that the normal approximation holds if few images
        differ (Agresti and Min, 2005, Statistics in Medicine 24).
        """
        total = self.num_images + 2
        difference = (self.num_gained - self.num_lost) / total
        variance = (self.num_gained + self.num_lost + 1 - total * difference**2) / total**2
        half = float(special.ndtri((1 + confidence) / 2)) * math.sqrt(variance)
        return difference - half, difference + half


def compare(champion: pd.DataFrame, challenger: pd.DataFrame) -> Comparison:
    """Count the images that only one of two models classifies correctly, from their predictions of the same images.

    Raises:
        ValueError: The predictions are of different images.
    """
    if not champion["label"].equals(challenger["label"]):
        raise ValueError("the two tables of predictions are of different images")
    champion_right = champion["predicted"] == champion["label"]
    challenger_right = challenger["predicted"] == challenger["label"]
    return Comparison(
        num_images=len(champion),
        num_gained=int((challenger_right & ~champion_right).sum()),
        num_lost=int((champion_right & ~challenger_right).sum()),
    )


@dataclass(frozen=True)
class Spent:
    """A comparison that was made and counts towards the budget.

    Attributes:
        champion: Id of the run whose model was compared with.
        challenger: Id of the run whose model was compared.
        number: Of the comparison on this test split, counted from 1.
        level: Significance level that it was tested at.
    """

    champion: str
    challenger: str
    test_digest: str
    number: int
    level: float
    alpha: float
    comparison: Comparison

    @property
    def is_better(self) -> bool:
        """The verdict."""
        return self.comparison.p_value <= self.level


@dataclass(frozen=True)
class Budget:
    """The budget of comparisons on one test split.

    Attributes:
        alpha: Of all comparisons together.
        spent: The comparisons that were made on this test split.
    """

    alpha: float
    spent: tuple[Spent, ...]

    @property
    def next_number(self) -> int:
        """Number of the next comparison."""
        return max((spent.number for spent in self.spent), default=0) + 1

    @property
    def next_level(self) -> float:
        """Significance level of the next comparison."""
        return level(self.next_number, self.alpha)

    @property
    def sum_spent(self) -> float:
        """Sum of the levels of all comparisons so far."""
        return sum(spent.level for spent in self.spent)

    def detectable(self, *, num_lost: int = 0) -> int:
        """Return the least difference, in images, that the next comparison could detect if `num_lost` are lost."""
        return least_gain(self.next_level, num_lost=num_lost) - num_lost

    def find(self, *, champion: str, challenger: str) -> Spent | None:
        """Return the comparison of this pair if it was made before."""
        return next(
            (spent for spent in self.spent if (spent.champion, spent.challenger) == (champion, challenger)), None
        )

    def spend(self, comparison: Comparison, *, champion: str, challenger: str, test_digest: str) -> Spent:
        """Return `comparison` as the next one that counts towards the budget."""
        return Spent(champion, challenger, test_digest, self.next_number, self.next_level, self.alpha, comparison)


def on_split(spent: Sequence[Spent], test_digest: str) -> tuple[Spent, ...]:
    """Return the comparisons on one test split."""
    return tuple(one for one in spent if one.test_digest == test_digest)
