import numpy as np
import pandas as pd
import pytest

from mnist_pipeline.registry.comparison import Budget, Comparison, compare, on_split
from mnist_pipeline.stats import least_gain, level, mcnemar

ALPHA = 0.05


def table(predicted: list[int], labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "predicted": predicted})


def test_images_that_only_one_gets_right_are_counted() -> None:
    labels = [0, 1, 2, 3, 4, 5]
    found = compare(table([0, 1, 2, 9, 9, 9], labels), table([0, 9, 9, 3, 4, 5], labels))
    assert (found.num_images, found.num_gained, found.num_lost) == (6, 3, 2)
    assert found.difference == pytest.approx(1 / 6)


def test_tables_of_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different images"):
        compare(table([0, 1], [0, 1]), table([0, 1], [1, 0]))


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (5, 1, 7 / 64),  # (6 + 1) / 2**6
        (1, 5, 63 / 64),
        (9, 2, 67 / 2048),  # (55 + 11 + 1) / 2**11; Fay (2010), R Journal 2/1: two-sided 0.06543
        (150, 86, 3.716e-05 / 2),  # Agresti (1990), p. 350, approval ratings, in the exact form
    ],
)
def test_the_p_value_is_the_binomial_one(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar(num_gained=gained, num_lost=lost) == pytest.approx(p_value, rel=1e-4)


def test_the_levels_are_those_worked_out_by_hand_and_sum_to_alpha() -> None:
    assert level(1, ALPHA) == pytest.approx(0.030396, rel=1e-4)  # 0.3 / 9.8696
    assert level(2, ALPHA) == pytest.approx(0.007599, rel=1e-4)
    assert level(10, ALPHA) == pytest.approx(0.00030396, rel=1e-4)
    total = sum(level(number, ALPHA) for number in range(1, 100_001))
    assert total < ALPHA
    assert total == pytest.approx(ALPHA, abs=1e-6)


def test_the_least_gain_passes_and_one_less_does_not() -> None:
    assert least_gain(level(1, ALPHA)) == 6  # 2**-6 = 0.0156 passes at 0.0304, 2**-5 = 0.0313 does not
    for num_lost in (0, 10, 100):
        least = least_gain(level(3, ALPHA), num_lost=num_lost)
        assert mcnemar(num_gained=least, num_lost=num_lost) <= level(3, ALPHA)
        assert mcnemar(num_gained=least - 1, num_lost=num_lost) > level(3, ALPHA)


def test_a_budget_numbers_its_comparisons_and_knows_a_pair_again() -> None:
    first = Budget(ALPHA, ()).spend(Comparison(100, 8, 1), champion="1", challenger="2", test_digest="a")
    assert (first.number, first.level, first.is_better) == (1, level(1, ALPHA), True)
    second = Budget(ALPHA, (first,)).spend(Comparison(100, 8, 2), champion="2", challenger="3", test_digest="a")
    assert (second.number, second.level, second.is_better) == (2, level(2, ALPHA), False)
    budget = Budget(ALPHA, (first, second))
    assert budget.find(champion="2", challenger="3") == second
    assert budget.find(champion="1", challenger="3") is None
    assert budget.sum_spent == pytest.approx(level(1, ALPHA) + level(2, ALPHA))
    assert budget.next_level == level(3, ALPHA)
    assert on_split([first, second], "b") == ()


@pytest.mark.parametrize("num_differing", [30, 300])
def test_equal_models_are_rarely_promoted(num_differing: int) -> None:
    """2,000 campaigns of 30 challengers, none better: the share in which any is promoted stays at or under alpha."""
    chance = np.random.default_rng(0)
    num_false = 0
    for _ in range(2000):
        budget = Budget(ALPHA, ())
        for challenger in range(30):
            gained = int(chance.binomial(num_differing, 0.5))
            compared = Comparison(10_000, gained, num_differing - gained)
            spent = budget.spend(compared, champion="0", challenger=str(challenger + 1), test_digest="a")
            if spent.is_better:
                num_false += 1
                break
            budget = Budget(ALPHA, (*budget.spent, spent))
    assert num_false / 2000 <= ALPHA
    assert num_false > 0  # else the simulation could not fail
