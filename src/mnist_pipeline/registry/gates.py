"""The gates before the alias `champion`: pure functions of values that return a figure, a bound and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline import stats
from mnist_pipeline.registry.comparison import Spent
from mnist_pipeline.tracking.record import PROBABILITY, Tag, class_names

TOLERANCE = 1e-5
"""Of the probabilities of a reloaded model (float32), on any machine."""

DIGEST_TAGS = (Tag.DATA_DIGEST, Tag.TEST_DIGEST)


@dataclass(frozen=True)
class Gate:
    """A gate's verdict.

    Attributes:
        figure: The value that was found.
        bound: The value that is required.
        is_passed: None if the gate was not reached, because an earlier one refused.
    """

    name: str
    figure: str
    bound: str
    is_passed: bool | None

    @property
    def verdict(self) -> str:
        """The verdict in a word or two."""
        return {True: "passed", False: "refused", None: "not reached"}[self.is_passed]


def complete(found: Sequence[Gate], names: Sequence[str]) -> tuple[Gate, ...]:
    """Return the verdicts of all gates in `names`; those after the ones that were `found` were not reached."""
    return (*found, *(Gate(name, "", "", None) for name in names[len(found) :]))


def data_as_asked(tags: Mapping[str, str]) -> Gate:
    """Refuse a run that fell back to other data than requested."""
    fallback = tags.get(Tag.DATA_FALLBACK)
    figure = f"fell back on {fallback}" if fallback else "as asked for"
    return Gate("data", figure, "no fallback", not fallback)


def same_data(tags: Mapping[str, str], champion: Mapping[str, str]) -> Gate:
    """Refuse a run on other data than the champion's, because the two cannot be compared."""
    differing = [tag for tag in DIGEST_TAGS if tags.get(tag) != champion.get(tag)]
    figure = f"other {' and '.join(differing)}" if differing else "the same digests"
    return Gate("same data", figure, "the champion's data and test split", not differing)


def whole(problems: Sequence[str]) -> Gate:
    """Refuse a run whose files are not as logged, or whose model cannot be loaded safely."""
    figure = "; ".join(problems) or "every file as logged"
    return Gate("whole", figure, "no file missing, changed or extra", not problems)


def same_predictions(logged: pd.DataFrame, again: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Gate:
    """Require the reloaded model to return the logged probabilities.

    Args:
        logged: The run's predictions, one row per image of the test split.
        again: float32 (n, num_classes), the reloaded model's probabilities for the test split.
        labels: int32 (n,), of the test split.
    """
    bound = f"the logged ones, at most {TOLERANCE:g} off"
    probabilities = logged.filter(like=PROBABILITY).to_numpy()
    if probabilities.shape != again.shape or not np.array_equal(logged["label"], labels):
        return Gate("predictions", "of other images", bound, False)
    if not np.array_equal(logged["predicted"], probabilities.argmax(axis=1)):
        return Gate("predictions", "the logged table contradicts itself", bound, False)
    furthest = float(np.abs(probabilities - again).max())
    return Gate("predictions", f"off by {furthest:.1g}", bound, furthest <= TOLERANCE)


def signature(found: str, *, image_shape: Sequence[int], num_classes: int) -> Gate:
    """Require raw uint8 images in and float32 probabilities out: scaling and softmax are inside.

    Args:
        found: As `describe_signature` writes it.
        image_shape: Height and width of the data's images.
        num_classes: How many classes the data has.
    """
    expected = describe_signature([("uint8", (-1, *image_shape))], [("float32", (-1, num_classes))])
    return Gate("signature", found, expected, found == expected)


def describe_signature(
    inputs: Sequence[tuple[str, Sequence[int]]], outputs: Sequence[tuple[str, Sequence[int]]]
) -> str:
    """Return types and shapes as text; -1 stands for any number of images."""
    sides = (", ".join(f"{kind} {_shape(shape)}" for kind, shape in side) for side in (inputs, outputs))
    return " to ".join(sides)


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join('n' if size == -1 else str(size) for size in shape)})"


def test_accuracy(predictions: pd.DataFrame, *, minimum: float) -> Gate:
    """Require a test accuracy, 0..1."""
    found = float((predictions["label"] == predictions["predicted"]).mean())
    return Gate("test accuracy", f"{found:.4f}", f"at least {minimum:g}", found >= minimum)


def model_size(num_bytes: int, *, maximum: int) -> Gate:
    """Require the model's files to be small enough."""
    return Gate("size", f"{num_bytes:,} bytes", f"at most {maximum:,} bytes", num_bytes <= maximum)


def recalls(champion: pd.DataFrame, challenger: pd.DataFrame, *, max_drop: float) -> Gate:
    """Require nearly the champion's recall for every class: a better total must not hide a class that got worse."""
    names = class_names(champion)
    before, after = (
        stats.score_classes(
            stats.confuse(table["label"].to_numpy(), table["predicted"].to_numpy(), num_classes=len(names))
        )[1]
        for table in (champion, challenger)
    )
    drops = before - after
    worst = int(drops.argmax())
    figure = f"class {names[worst]} by {100 * drops[worst]:.2f} points" if drops[worst] > 0 else "none falls"
    # A drop of exactly the bound is allowed, despite rounding.
    return Gate("recall", figure, f"falls by at most {100 * max_drop:g} points", bool(drops[worst] <= max_drop + 1e-12))


def same_result(name: str) -> Gate:
    """Pass the identical result of a damaged champion: there is nothing to compare."""
    return Gate(name, "the champion's own result, bit for bit", "identical, since the champion is damaged", True)


def superiority(spent: Spent) -> Gate:
    """Require that chance alone would rarely make the challenger this much better: see `stats.mcnemar`."""
    compared = spent.comparison
    figure = f"p = {compared.p_value:.2g} ({compared.num_gained} gained, {compared.num_lost} lost)"
    bound = f"p at most {spent.level:.2g} (comparison {spent.number})"
    return Gate("superiority", figure, bound, spent.is_better)
