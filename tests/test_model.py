import logging
import math

import keras
import numpy as np
import pytest

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.model import dense, inspection, prediction, score


def build(seed: int = 0) -> keras.Model:
    return dense.build(image_shape=(28, 28), num_classes=10, seed=seed)


def make_split(num_images: int = 50) -> Split:
    random = np.random.default_rng(0)
    return Split(
        random.integers(0, 256, (num_images, 28, 28)).astype(np.uint8), np.arange(num_images, dtype=np.int32) % 10
    )


def test_the_baseline_has_the_tutorials_layers() -> None:
    layers = inspection.summarise_layers(build())
    assert layers["kind"].tolist() == ["Rescaling", "Flatten", "Dense", "Dropout", "Dense"]
    assert layers["num_params"].tolist() == [0, 0, 784 * 128 + 128, 0, 128 * 10 + 10]
    assert build().count_params() == 101_770


def test_shape_and_classes_come_from_the_caller() -> None:
    built = dense.build(image_shape=(8, 9, 3), num_classes=4, seed=0)
    logits = prediction.predict_logits(built, np.zeros((2, 8, 9, 3), np.uint8))
    assert logits.shape == (2, 4)
    assert logits.dtype == np.float32


def test_the_weights_are_a_function_of_the_seed() -> None:
    first, again, other = build(0), build(0), build(1)
    for mine, same, different in zip(first.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, same)
        if mine.ndim == 2:
            assert not np.array_equal(mine, different)


def test_predictions_in_chunks_equal_those_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    built, images = build(), make_split(50).images
    whole = prediction.predict_logits(built, images)
    monkeypatch.setattr(prediction, "_MOST_IMAGES", 7)
    np.testing.assert_allclose(prediction.predict_logits(built, images), whole, atol=1e-6)


def test_the_score_worked_by_hand() -> None:
    # Probabilities 3/4 and 1/4; the second image is labelled with the less likely class.
    logits = np.log(np.array([[3, 1], [3, 1]], np.float32))
    found = score.score(logits, np.array([0, 1], np.int32))
    assert found.loss == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert found.accuracy == 0.5


def test_the_logged_model_gives_probabilities() -> None:
    built, images = build(), make_split().images
    probabilities = np.asarray(prediction.with_probabilities(built)(images))
    logits = prediction.predict_logits(built, images)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert probabilities.dtype == np.float32


def test_an_untrained_model_knows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mnist_pipeline"):
        look = inspection.look_untrained(build(), make_split())
    assert look.expected_loss == pytest.approx(math.log(10))
    assert look.loss == pytest.approx(math.log(10), abs=0.5)
    assert look.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert not caplog.records


def test_an_untrained_loss_far_from_ln_10_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    unscaled = build()
    unscaled.get_layer("hidden").set_weights([weights * 255 for weights in unscaled.get_layer("hidden").get_weights()])
    with caplog.at_level(logging.WARNING, "mnist_pipeline"):
        inspection.look_untrained(unscaled, make_split())
    assert "far from ln 10 = 2.303" in caplog.text
