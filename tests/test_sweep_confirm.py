import math

import pytest

from mnist_pipeline.sweep import confirm
from mnist_pipeline.sweep.confirm import Comparison, Pair
from mnist_pipeline.sweep.settings import Direction

MAX, MIN = Direction.maximize, Direction.minimize


def test_a_paired_interval_worked_by_hand() -> None:
    # Differences 1, 2, 3, 4: mean 2.5, standard deviation sqrt(5/3), error sqrt(5/3)/2, t(0.975; 3) = 3.182446.
    verdict = confirm.compare([0, 0, 0, 0], {"a": [1, 2, 3, 4]}, direction=MAX)
    (comparison,) = verdict.comparisons
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert comparison.mean == 2.5
    assert comparison.low == pytest.approx(2.5 - half, abs=1e-6)
    assert comparison.high == pytest.approx(2.5 + half, abs=1e-6)
    assert verdict.winner == "a"
    assert verdict.confidence == 0.95


def test_several_candidates_pay_for_being_several() -> None:
    # Bonferroni over 3: t(1 - 0.05/6; 4) = 3.960808 instead of 2.776445 (NIST tables, interpolated by scipy).
    baseline = [0.0] * 5
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    one = confirm.compare(baseline, {"a": values}, direction=MAX).comparisons[0]
    three = confirm.compare(baseline, {"a": values, "b": values, "c": values}, direction=MAX).comparisons[0]
    error = math.sqrt(2.5 / 5)
    assert one.high - one.mean == pytest.approx(2.776445 * error, abs=1e-5)
    assert three.high - three.mean == pytest.approx(3.960808 * error, abs=1e-4)


def test_pairs_and_not_means_are_compared() -> None:
    # Pair by pair always better by 0.01, though the spread over the seeds is ten times that.
    baseline = [0.1, 0.2, 0.3, 0.4]
    candidate = [0.11, 0.2101, 0.3099, 0.41]
    assert confirm.compare(baseline, {"a": candidate}, direction=MAX).winner == "a"


def test_the_baseline_stays_unless_an_interval_excludes_0() -> None:
    baseline = [0.5, 0.6, 0.7]
    assert confirm.compare(baseline, {"a": [0.9, 0.6, 0.7]}, direction=MAX).winner is None
    assert confirm.compare(baseline, {"a": baseline}, direction=MAX).winner is None
    assert confirm.compare(baseline, {"a": [0.4, 0.5, 0.6]}, direction=MAX).winner is None
    assert confirm.compare(baseline, {}, direction=MAX).winner is None


def test_the_direction_decides_what_is_better() -> None:
    baseline, lower = [0.5, 0.6, 0.7], [0.4, 0.5, 0.6001]
    assert confirm.compare(baseline, {"a": lower}, direction=MAX).winner is None
    assert confirm.compare(baseline, {"a": lower}, direction=MIN).winner == "a"
    assert Comparison("a", mean=-1, low=-2, high=-0.5).is_better(MIN)
    assert not Comparison("a", mean=-1, low=-2, high=0).is_better(MIN)


def test_the_best_of_the_better_ones_wins() -> None:
    baseline = [0.0, 0.0, 0.0]
    scores = {"small": [0.1, 0.1001, 0.1], "large": [0.2, 0.2001, 0.2], "unsure": [0.0, 0.9, 0.9]}
    assert confirm.compare(baseline, scores, direction=MAX).winner == "large"


def test_pairs_are_fresh_and_a_pure_function_of_the_seed() -> None:
    taken = Pair(train_seed=0, split_seed=0)
    five = confirm.draw_pairs(0, num_pairs=5, taken=taken)
    assert five == confirm.draw_pairs(0, num_pairs=5, taken=taken)
    assert confirm.draw_pairs(0, num_pairs=8, taken=taken)[:5] == five
    assert confirm.draw_pairs(1, num_pairs=5, taken=taken) != five
    assert len({pair.train_seed for pair in five} | {pair.split_seed for pair in five}) == 10
    again = confirm.draw_pairs(0, num_pairs=4, taken=five[1])
    assert five[1] not in again
