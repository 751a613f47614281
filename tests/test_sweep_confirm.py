import math
from collections.abc import Sequence

import numpy as np
import pytest

from mnist_pipeline.sweep import confirm
from mnist_pipeline.sweep.confirm import Comparison, Design, Outcome, Pair, Verdict
from mnist_pipeline.sweep.settings import ConfirmConfig, Direction
from mnist_pipeline.system.errors import ConfigError

MAX, MIN = Direction.maximize, Direction.minimize
DEFAULT = ConfirmConfig(top_k=3, num_seeds=5, max_seeds=20, min_gain=0.001)
SPREAD = 0.0028
"""Of a pair's difference on MNIST, as a standard deviation of the validation accuracy."""


def plan(num_pairs: int, *, num_candidates: int = 1, direction: Direction = MAX, min_gain: float = 0) -> Design:
    """Return a design with one look."""
    config = ConfirmConfig(top_k=num_candidates, num_seeds=num_pairs, max_seeds=num_pairs, min_gain=min_gain)
    return confirm.plan_looks(config, num_candidates=num_candidates, direction=direction)


def compare(values: Sequence[float], baseline: Sequence[float], **about: Direction | float) -> Comparison:
    return plan(len(values), **about).compare("a", values, baseline, look=0)  # type: ignore[arg-type]


def test_a_paired_interval_worked_by_hand() -> None:
    # Differences 1, 2, 3, 4: mean 2.5, standard deviation sqrt(5/3), error sqrt(5/3)/2, t(0.975; 3) = 3.182446.
    comparison = compare([1, 2, 3, 4], [0, 0, 0, 0])
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (comparison.mean, comparison.num_pairs) == (2.5, 4)
    assert comparison.low == pytest.approx(2.5 - half, abs=1e-6)
    assert comparison.high == pytest.approx(2.5 + half, abs=1e-6)
    assert comparison.spread == pytest.approx(math.sqrt(5 / 3))
    assert comparison.outcome is Outcome.better


def test_several_candidates_pay_for_being_several() -> None:
    # Bonferroni over 3: t(1 - 0.05/6; 4) = 3.960808 instead of 2.776445 (NIST tables, interpolated by scipy).
    baseline = [0.0] * 5
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    one = plan(5).compare("a", values, baseline, look=0)
    three = plan(5, num_candidates=3).compare("a", values, baseline, look=0)
    error = math.sqrt(2.5 / 5)
    assert one.high - one.mean == pytest.approx(2.776445 * error, abs=1e-5)
    assert three.high - three.mean == pytest.approx(3.960808 * error, abs=1e-4)


@pytest.mark.parametrize(
    ("num_seeds", "max_seeds", "looks"), [(5, 20, (5, 10, 15, 20)), (5, 12, (5, 10, 12)), (2, 2, (2,))]
)
def test_the_looks_share_alpha(num_seeds: int, max_seeds: int, looks: tuple[int, ...]) -> None:
    config = ConfirmConfig(top_k=3, num_seeds=num_seeds, max_seeds=max_seeds, min_gain=0)
    design = confirm.plan_looks(config, num_candidates=3, direction=MAX)
    assert design.looks == looks
    assert 3 * sum(design.levels) == pytest.approx(confirm.ALPHA)
    assert list(design.levels) == sorted(design.levels) or len(looks) == 3  # the last of these comes soon after


def test_a_last_look_before_the_first_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_seeds=4: expected at least sweep\.confirm\.num_seeds=5"):
        ConfirmConfig(top_k=1, num_seeds=5, max_seeds=4, min_gain=0)


def test_pairs_and_not_means_are_compared() -> None:
    # Pair by pair always better by 0.01, though the spread over the seeds is ten times that.
    baseline = [0.1, 0.2, 0.3, 0.4]
    candidate = [0.11, 0.2101, 0.3099, 0.41]
    assert compare(candidate, baseline).outcome is Outcome.better


def test_the_direction_decides_what_is_better() -> None:
    baseline, lower = [0.5, 0.6, 0.7], [0.4, 0.5, 0.6001]
    assert compare(lower, baseline).outcome is Outcome.no_gain
    assert compare(lower, baseline, direction=MIN).outcome is Outcome.better
    assert compare(baseline, baseline).outcome is Outcome.undecided


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ([0.0030, 0.0031, 0.0029, 0.0030, 0.0030], Outcome.better),
        ([0.0005, 0.0004, 0.0006, 0.0005, 0.0005], Outcome.better),  # too small to be wanted, but certain
        ([0.0001, -0.0001, 0.0, 0.0001, -0.0001], Outcome.no_gain),
        ([-0.003, 0.001, -0.002, -0.004, 0.002], Outcome.hopeless),
        ([0.003, 0.006, -0.001, 0.004, 0.001], Outcome.undecided),
    ],
)
def test_a_look_tells_clear_cases_from_open_ones(gains: list[float], outcome: Outcome) -> None:
    for direction, sign in ((MAX, 1), (MIN, -1)):
        design = confirm.plan_looks(DEFAULT, num_candidates=3, direction=direction)
        values = [0.98 + sign * gain for gain in gains]
        assert design.compare("a", values, [0.98] * 5, look=0).outcome is outcome


def test_the_chance_is_that_of_pairs_still_to_come() -> None:
    """Against its definition: draw the true mean and spread given the first pairs, then the other pairs."""
    generator = np.random.default_rng(0)
    gains = np.array([0.4, 1.1, -0.2, 0.8, 0.3, 0.9])
    num_draws, num_seen, num_pairs = 200_000, len(gains), 12
    variance = gains.var(ddof=1) * (num_seen - 1) / generator.chisquare(num_seen - 1, num_draws)
    true = gains.mean() + np.sqrt(variance / num_seen) * generator.standard_normal(num_draws)
    later = true + np.sqrt(variance / (num_pairs - num_seen)) * generator.standard_normal(num_draws)
    mean = (gains.sum() + (num_pairs - num_seen) * later) / num_pairs
    needed = 2.200985 * gains.std(ddof=1) / math.sqrt(num_pairs)  # t(0.975; 11)
    expected = float((mean > needed).mean())
    assert 0.2 < expected < 0.95
    assert confirm.find_chance(gains, num_pairs=num_pairs, alpha=0.05) == pytest.approx(expected, abs=0.005)


def conclude_at_once(baseline: list[float], candidates: dict[str, list[float]]) -> Verdict:
    design = plan(len(baseline), num_candidates=len(candidates))
    look = [design.compare(name, values, baseline, look=0) for name, values in candidates.items()]
    return confirm.conclude([look] if look else [], design)


def test_the_baseline_stays_unless_an_interval_excludes_0() -> None:
    baseline = [0.5, 0.6, 0.7]
    for candidates in ({"a": [0.9, 0.6, 0.7]}, {"a": baseline}, {"a": [0.4, 0.5, 0.6]}, {}):
        verdict = conclude_at_once(baseline, candidates)
        assert verdict.winner is None
        assert verdict.confidence == 0.95
        assert (verdict.detectable_gain is None) == (not candidates)


def test_the_best_of_the_better_ones_wins() -> None:
    scores = {"small": [0.1, 0.1001, 0.1], "large": [0.2, 0.2001, 0.2], "unsure": [0.0, 0.9, 0.9]}
    assert conclude_at_once([0.0, 0.0, 0.0], scores).winner == "large"


def simulate(gains: Sequence[float], *, num_sweeps: int, seed: int) -> tuple[float, float]:
    """Confirm candidates with these true gains; return how often a candidate wins, and the mean number of trainings."""
    generator = np.random.default_rng(seed)
    design = confirm.plan_looks(DEFAULT, num_candidates=len(gains), direction=MAX)
    num_won = num_trainings = 0
    for _ in range(num_sweeps):
        baseline, *values = generator.normal(0, SPREAD / math.sqrt(2), (1 + len(gains), design.looks[-1]))
        going_on = {f"trial {number}": values[number] + gain for number, gain in enumerate(gains)}
        looks: list[list[Comparison]] = []
        for number, num_pairs in enumerate(design.looks):
            num_trainings += (1 + len(going_on)) * (num_pairs - (design.looks[number - 1] if number else 0))
            looks.append(
                [
                    design.compare(name, own[:num_pairs], baseline[:num_pairs], look=number)
                    for name, own in going_on.items()
                ]
            )
            undecided = [one.name for one in looks[-1] if one.outcome is Outcome.undecided]
            going_on = {name: going_on[name] for name in undecided}
            if not going_on:
                break
        num_won += confirm.conclude(looks, design).winner is not None
    return num_won / num_sweeps, num_trainings / num_sweeps


def test_equal_candidates_leave_the_baseline_in_at_most_5_percent_of_sweeps() -> None:
    rate, num_trainings = simulate([0, 0, 0], num_sweeps=1500, seed=1)
    assert rate <= confirm.ALPHA
    assert num_trainings < 60  # of 80


def test_a_gain_of_three_tenths_of_a_point_is_found_in_at_least_80_percent_of_sweeps() -> None:
    for gains in ([0.003], [0.003, 0, 0]):
        assert simulate(gains, num_sweeps=300, seed=2)[0] >= 0.8


def test_the_gain_that_is_said_to_be_found_is_found() -> None:
    gain = confirm.plan_looks(DEFAULT, num_candidates=1, direction=MAX).find_detectable_gain(SPREAD)
    assert simulate([gain], num_sweeps=600, seed=3)[0] == pytest.approx(confirm.POWER, abs=0.06)


def test_pairs_are_fresh_and_a_pure_function_of_the_seed() -> None:
    taken = Pair(train_seed=0, split_seed=0)
    five = confirm.draw_pairs(0, num_pairs=5, taken=taken)
    assert five == confirm.draw_pairs(0, num_pairs=5, taken=taken)
    assert confirm.draw_pairs(0, num_pairs=8, taken=taken)[:5] == five
    assert confirm.draw_pairs(1, num_pairs=5, taken=taken) != five
    assert len({pair.train_seed for pair in five} | {pair.split_seed for pair in five}) == 10
    again = confirm.draw_pairs(0, num_pairs=4, taken=five[1])
    assert five[1] not in again
