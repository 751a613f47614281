import numpy as np
import pandas as pd
import pytest

from mnist_pipeline.registry import gates
from mnist_pipeline.registry.comparison import Budget, Comparison


def predictions(predicted: list[int], labels: list[int], num_classes: int = 3) -> pd.DataFrame:
    """A table as a run logs it: the predicted class has probability 0.8."""
    table = pd.DataFrame({"label": np.array(labels, np.int32), "predicted": np.array(predicted, np.int32)})
    for number in range(num_classes):
        table[f"probability_{number}"] = np.where(table["predicted"] == number, 0.8, 0.1).astype(np.float32)
    return table


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.filter(like="probability_").to_numpy()


def test_a_run_that_fell_back_is_refused() -> None:
    assert gates.data_as_asked({"data.requested": "digits"}).is_passed
    refused = gates.data_as_asked({"data.requested": "mnist", "data.fallback": "digits"})
    assert (refused.is_passed, refused.figure) == (False, "fell back on digits")


def test_a_run_on_other_data_is_refused() -> None:
    champion = {"data.digest": "a", "data.test_digest": "b"}
    assert gates.same_data(champion, champion).is_passed
    assert gates.same_data({**champion, "data.test_digest": "c"}, champion).figure == "other data.test_digest"
    assert not gates.same_data({}, champion).is_passed


def test_missing_parts_are_named() -> None:
    assert gates.whole(()).is_passed
    refused = gates.whole(("missing: the tag fingerprint", "changed: config/config.yaml"))
    assert (refused.is_passed, refused.figure) == (False, "missing: the tag fingerprint; changed: config/config.yaml")


def test_the_reloaded_model_must_give_the_logged_predictions() -> None:
    logged = predictions([0, 1, 2], [0, 1, 1])
    labels = np.array([0, 1, 1], np.int32)
    again = probabilities(logged)
    assert gates.same_predictions(logged, again, labels).is_passed
    assert gates.same_predictions(logged, again + np.float32(9e-6), labels).is_passed
    for wrong in (again + np.float32(2e-5), again * np.float32("nan"), again[:2], again[:, :2]):
        assert gates.same_predictions(logged, wrong, labels).is_passed is False
    assert gates.same_predictions(logged, again, labels + 1).is_passed is False
    better_by_hand = logged.assign(predicted=logged["label"])
    assert gates.same_predictions(better_by_hand, again, labels).is_passed is False


def test_the_signature_is_that_of_raw_images() -> None:
    good = "uint8 (n, 28, 28) to float32 (n, 10)"
    assert gates.signature(good, image_shape=(28, 28), num_classes=10).is_passed
    for wrong in ("float32 (n, 28, 28) to float32 (n, 10)", "uint8 (n, 28, 28, 1) to float32 (n, 10)", ""):
        assert not gates.signature(wrong, image_shape=(28, 28), num_classes=10).is_passed


def test_accuracy_and_size_are_held_to_their_bounds() -> None:
    table = predictions([0, 1, 2, 2], [0, 1, 2, 1])
    assert gates.test_accuracy(table, minimum=0.75).is_passed
    assert gates.test_accuracy(table, minimum=0.76).figure == "0.7500"
    assert not gates.test_accuracy(table, minimum=0.76).is_passed
    assert gates.model_size(1000, maximum=1000).is_passed
    assert not gates.model_size(1001, maximum=1000).is_passed


def test_a_class_that_got_much_worse_refuses_a_better_whole() -> None:
    labels = [0] * 100 + [1] * 50
    before = predictions([0] * 80 + [1] * 20 + [1] * 50, labels)
    two_lost = predictions([0] * 100 + [1] * 49 + [0], labels)
    three_lost = predictions([0] * 100 + [1] * 48 + [0] * 2, labels)
    passed = gates.recalls(before, two_lost, max_drop=0.02)  # 1 of 50: 2 points, exactly the bound
    assert (passed.is_passed, passed.figure) == (True, "class 1 by 2.00 points")
    refused = gates.recalls(before, three_lost, max_drop=0.02)
    assert (refused.is_passed, refused.figure) == (False, "class 1 by 4.00 points")
    assert gates.recalls(before, before, max_drop=0).figure == "none falls"


@pytest.mark.parametrize(("gained", "is_passed"), [(6, True), (5, False)])
def test_superiority_is_the_comparisons_verdict(gained: int, is_passed: bool) -> None:
    compared = Comparison(100, gained, 0)
    spent = Budget(0.05, ()).spend(compared, champion="1", challenger="2", test_digest="a")
    assert gates.superiority(spent).is_passed is is_passed


def test_gates_after_a_refusal_are_not_reached() -> None:
    found = gates.complete([gates.whole(("files",))], ("whole", "size"))
    assert [(gate.name, gate.verdict) for gate in found] == [("whole", "refused"), ("size", "not reached")]
