import numpy as np
import pytest
import sklearn.metrics
from scipy.stats import binomtest

from mnist_pipeline import stats
from mnist_pipeline.config.sections import EvaluateConfig
from mnist_pipeline.evaluate.evaluation import Evaluation, evaluate_logits

CLASS_NAMES = ("cat", "dog", "owl")

# Four images of three classes. The first two are right, the third is a dog taken for a cat, the fourth an owl taken
# for a dog with less confidence.
PROBABILITIES = np.array([[0.75, 0.15, 0.1], [0.2, 0.68, 0.12], [0.88, 0.07, 0.05], [0.3, 0.55, 0.15]])
LABELS = np.array([0, 1, 1, 2], np.int32)


def evaluate(num_bins: int = 10, num_mistakes: int = 5) -> Evaluation:
    return evaluate_logits(
        np.log(PROBABILITIES).astype(np.float32),
        LABELS,
        class_names=CLASS_NAMES,
        config=EvaluateConfig(num_calibration_bins=num_bins, num_mistakes=num_mistakes),
    )


def test_loss_and_accuracy() -> None:
    found = evaluate().score
    assert found.accuracy == 0.5
    assert found.loss == pytest.approx(-(np.log(0.75) + np.log(0.68) + np.log(0.07) + np.log(0.15)) / 4, rel=1e-6)


def test_precision_recall_and_f1_of_each_class() -> None:
    cat, dog, owl = evaluate().per_class.to_dict("records")
    assert cat == pytest.approx({"class": "cat", "precision": 1 / 2, "recall": 1, "f1": 2 / 3, "num_images": 1})
    assert dog == pytest.approx({"class": "dog", "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "num_images": 2})
    assert owl == {"class": "owl", "precision": 0, "recall": 0, "f1": 0, "num_images": 1}


def test_the_confusion_matrix_has_labels_in_rows() -> None:
    confusion = evaluate().confusion
    assert confusion.to_numpy().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert confusion.loc["dog", "cat"] == 1
    assert (confusion.index.name, confusion.columns.name) == ("label", "predicted")


def test_the_expected_calibration_error() -> None:
    # Bins (0.5, 0.6], (0.6, 0.7], (0.7, 0.8], (0.8, 0.9], one image each: the gaps are 0.55, 0.32, 0.25 and 0.88.
    found = evaluate()
    assert found.calibration["num_images"].tolist() == [1, 1, 1, 1]
    assert found.calibration["confidence_to"].tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert found.calibration["accuracy"].tolist() == [0, 1, 1, 0]
    assert found.calibration_error == pytest.approx((0.55 + 0.32 + 0.25 + 0.88) / 4, rel=1e-6)


def test_one_bin_compares_the_means() -> None:
    assert evaluate(num_bins=1).calibration_error == pytest.approx(0.715 - 0.5, rel=1e-6)


def test_a_certain_prediction_falls_into_the_last_bin() -> None:
    found = evaluate_logits(
        np.array([[1000, 0, 0]], np.float32),
        np.array([0], np.int32),
        class_names=CLASS_NAMES,
        config=EvaluateConfig(num_calibration_bins=15, num_mistakes=1),
    )
    assert found.calibration["confidence_to"].tolist() == [1.0]
    assert found.calibration_error == 0
    assert len(found.mistakes) == 0


def test_the_predictions_table() -> None:
    table = evaluate().predictions
    assert table.columns.tolist() == [
        "index", "label", "predicted", "probability_cat", "probability_dog", "probability_owl",
    ]  # fmt: skip
    assert table["index"].tolist() == [0, 1, 2, 3]
    assert table["predicted"].tolist() == [0, 1, 0, 1]
    assert table["probability_dog"].dtype == np.float32
    np.testing.assert_allclose(table.filter(like="probability_"), PROBABILITIES, atol=1e-6)


def test_the_surest_mistakes_come_first() -> None:
    mistakes = evaluate().mistakes
    assert mistakes["index"].tolist() == [2, 3]
    assert mistakes["confidence"].tolist() == pytest.approx([0.88, 0.55])
    assert evaluate(num_mistakes=1).mistakes["index"].tolist() == [2]


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_the_scores_of_classes_are_those_of_scikit_learn(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    labels, predicted = rng.integers(0, num_classes - 1, 200), rng.integers(1, num_classes, 200)  # some never occur
    names = range(num_classes)
    confusion = stats.confuse(labels, predicted, num_classes=num_classes)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted, labels=names))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0.0)
    for ours, theirs in zip(stats.score_classes(confusion), expected[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)


@pytest.mark.parametrize(("num_hits", "num_images"), [(9793, 10_000), (0, 360), (360, 360), (1, 1)])
def test_the_interval_of_a_share_is_wilsons(num_hits: int, num_images: int) -> None:
    expected = binomtest(num_hits, num_images).proportion_ci(0.95, method="wilson")
    low, high = stats.find_share_interval(num_hits, num_images, confidence=0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
