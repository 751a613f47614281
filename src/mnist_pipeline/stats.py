"""The statistics of comparisons: intervals, the exact McNemar test, levels that share one alpha, and scores.

Scikit-learn has the scores too; to import it would take as long as an epoch.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special  # scipy.stats has the same functions, and takes most of a second to import


def find_interval(
    differences: np.ndarray[tuple[int, ...], np.dtype[np.float64]], *, alpha: float
) -> tuple[float, float, float]:
    """Return the mean of paired differences, and the t interval that misses the true one with probability `alpha`."""
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    half = float(special.stdtrit(len(differences) - 1, 1 - alpha / 2)) * error
    return mean, mean - half, mean + half


def find_share_interval(num_hits: int, num_images: int, *, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval for a share (1927, Journal of the American Statistical Association 22).

    Args:
        num_hits: Of the sample.
        num_images: In the sample, at least 1.
        confidence: That the interval has the true share, 0..1.
    """
    share = num_hits / num_images
    quantile = float(special.ndtri((1 + confidence) / 2))
    weight = quantile**2 / num_images
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4)
    middle = share + weight / 2
    return (middle - half) / (1 + weight), (middle + half) / (1 + weight)


def mcnemar(*, num_gained: int, num_lost: int) -> float:
    """Return the p-value of the one-sided exact McNemar test.

    If the models are equally good, each image on which only one of them is right falls to either with probability 1/2:
    the p-value is P(X >= num_gained) for X ~ Binomial(num_gained + num_lost, 1/2) (McNemar, 1947, Psychometrika 12,
    in its exact form: Fay, 2010, R Journal 2/1). Images on which both are right or both are wrong carry no information.
    """
    if num_gained == 0:
        return 1.0
    return float(special.bdtrc(num_gained - 1, num_gained + num_lost, 0.5))


def level(number: int, alpha: float) -> float:
    """Return the significance level of comparison `number`, counted from 1.

    Online Bonferroni: the levels alpha * 6 / (pi^2 number^2) of any number of comparisons sum to alpha at most, since
    the inverse squares sum to pi^2/6. So the probability of even one false promotion is at most alpha (alpha
    spending: Foster and Stine, 2008, Journal of the Royal Statistical Society B 70).
    """
    return 6 * alpha / (math.pi**2 * number**2)


def least_gain(level: float, *, num_lost: int = 0) -> int:
    """Return the least number of gained images that passes at `level` if `num_lost` are lost."""
    gained = num_lost + 1
    while mcnemar(num_gained=gained, num_lost=num_lost) > level:
        gained += 1
    return gained


def confuse(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], *, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return the confusion matrix int64 (num_classes, num_classes) of two arrays (n,): a row for each label."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def score_classes(
    confusion: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return precision, recall and F1 of each class, float64 (num_classes,); 0 where there is nothing to divide by."""
    hits, predicted, labelled = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(labelled, 1),
        2 * hits / np.maximum(predicted + labelled, 1),
    )
