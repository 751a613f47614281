import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import keras
import numpy as np
import pytest

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Dataset, Split
from mnist_pipeline.model import dense
from mnist_pipeline.tracking.record import read_epoch_metrics
from mnist_pipeline.train import fit
from mnist_pipeline.train.epochs import Epoch
from mnist_pipeline.train.fit import LossNotFiniteError


def make_config(*overrides: str, **changes: float) -> TrainConfig:
    words = ["train.num_epochs=2", "train.num_threads=1", *overrides]
    return compose.compose([*words, *(f"train.{key}={value}" for key, value in changes.items())]).train


def make_model(dropout_rate: float = 0.0) -> keras.Model:
    return dense.build(
        hidden_width=32,
        dropout_rate=dropout_rate,
        image_shape=(28, 28),
        num_classes=10,
        seed=0,
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load(compose.compose(["data=digits"]).data)


def first(dataset: Dataset, num_images: int) -> Dataset:
    cut = Split(dataset.train.images[:num_images], dataset.train.labels[:num_images])
    return Dataset(**{**vars(dataset), "train": cut})


def convolutional() -> keras.Model:
    """A classifier with everything that the baseline lacks: convolution, moving statistics, a weight penalty."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Reshape((28, 28, 1)),
            keras.layers.Conv2D(4, 3, strides=3, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.parametrize(("make", "num_images"), [(make_model, 50 * 32), (make_model, 70), (convolutional, 70)])
def test_training_is_that_of_keras(make: Callable[[], keras.Model], num_images: int, digits: Dataset) -> None:
    """The same batches and initial weights, step by step with `train_on_batch`, the last partial batch included."""
    repeats = -(-num_images // len(digits.train))
    images = np.concatenate([digits.train.images] * repeats)[:num_images]
    labels = np.concatenate([digits.train.labels] * repeats)[:num_images]
    dataset = Dataset(**{**vars(digits), "train": Split(images, labels), "validation": None})
    ours, theirs = make(), make()
    theirs.set_weights(ours.get_weights())
    theirs.compile(keras.optimizers.Adam(0.001), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    history = fit.fit(ours, dataset, make_config(num_epochs=1))
    order = fit.epoch_order(num_images, seed=0, epoch=1)
    for start in range(0, num_images, 32):
        batch = order[start : start + 32]
        theirs.train_on_batch(images[batch], labels[batch])
    for mine, keras_weights in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_weights, atol=1e-5)
    assert len(history) == 1


def test_the_means_of_an_epoch_weigh_every_image_once(digits: Dataset) -> None:
    # With a learning rate too small to move a weight, the epoch's means are those of the untrained model.
    dataset, built = first(digits, 70), make_model()
    expected = fit.score_split(built, dataset.train)
    (epoch,) = fit.fit(built, dataset, make_config(num_epochs=1, learning_rate=1e-30))
    assert epoch.train.loss == pytest.approx(expected.loss, rel=1e-5)
    assert epoch.train.accuracy == pytest.approx(expected.accuracy)


def test_a_batch_larger_than_the_data_is_one_step(digits: Dataset) -> None:
    dataset = first(digits, 20)
    small, large = make_model(), make_model()
    fit.fit(small, dataset, make_config(num_epochs=1, batch_size=20))
    fit.fit(large, dataset, make_config(num_epochs=1, batch_size=1000))
    for one, other in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_every_epoch_is_reported_in_order(digits: Dataset) -> None:
    seen: list[Epoch] = []
    history = fit.fit(make_model(), digits, make_config(num_epochs=3), on_epoch=seen.append)
    assert seen == history
    assert [epoch.number for epoch in history] == [1, 2, 3]
    assert all(later.train.loss < earlier.train.loss for earlier, later in pairwise(history))
    assert set(read_epoch_metrics(history[0])) == {
        "train/loss",
        "train/accuracy",
        "validation/loss",
        "validation/accuracy",
        "time/epoch_sec",
    }


def test_without_validation_there_are_no_validation_scores(digits: Dataset) -> None:
    dataset = Dataset(**{**vars(digits), "validation": None})
    (epoch,) = fit.fit(make_model(), dataset, make_config(num_epochs=1))
    assert epoch.validation is None
    assert set(read_epoch_metrics(epoch)) == {"train/loss", "train/accuracy", "time/epoch_sec"}


def test_an_error_in_on_epoch_ends_the_training(digits: Dataset) -> None:
    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit.fit(make_model(), digits, make_config(), on_epoch=stop)


def test_a_loss_that_is_not_finite_stops_the_training(digits: Dataset) -> None:
    with pytest.raises(
        LossNotFiniteError, match=r"the training loss became (nan|inf): lower train.learning_rate=1e\+30"
    ):
        fit.fit(make_model(), digits, make_config(learning_rate=1e30))


def test_the_order_is_a_permutation_fixed_by_seed_and_epoch() -> None:
    orders = [fit.epoch_order(100, seed=seed, epoch=epoch) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


def test_the_last_steps_harm_is_seen_in_the_validation_loss(digits: Dataset) -> None:
    """One step alone: its training loss is that of the weights before it."""
    with pytest.raises(LossNotFiniteError, match=r"the validation loss became"):
        fit.fit(make_model(), digits, make_config(num_epochs=1, batch_size=2000, learning_rate=3e38))


def test_constraints_hold_and_unused_weights_do_no_harm(digits: Dataset) -> None:
    class Unused(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: tuple[int, ...]) -> None:
            self.unused = self.add_weight(shape=(3,), name="unused")

        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return inputs

    built = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            Unused(),
            keras.layers.Dense(10, kernel_constraint=keras.constraints.NonNeg(), name="logits"),
        ]
    )
    unused = built.layers[2].get_weights()[0]
    fit.fit(built, first(digits, 64), make_config(num_epochs=1))
    assert built.get_layer("logits").get_weights()[0].min() >= 0
    np.testing.assert_array_equal(built.layers[2].get_weights()[0], unused)


def train_and_digest() -> str:
    """Train on the digits with dropout; return the SHA-256 of the weights and of every metric but the times."""
    dataset, built = catalogue.load(compose.compose(["data=digits"]).data), make_model(dropout_rate=0.2)
    history = fit.fit(built, dataset, make_config())
    digest = hashlib.sha256(b"".join(weights.tobytes() for weights in built.get_weights()))
    for epoch in history:
        digest.update(repr((epoch.number, epoch.train, epoch.validation)).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("num_threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_give_the_same_bits(num_threads: int) -> None:
    start = f"from mnist_pipeline.train.runtime import start_tensorflow; start_tensorflow({num_threads})"
    code = f"{start}; import test_train; print(test_train.train_and_digest())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digests = [child.communicate(timeout=120)[0].strip() for child in children]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_a_golden_trace(digits: Dataset) -> None:
    """Seeded training gives these figures; the tolerance is for other processors' rounding."""
    history = fit.fit(make_model(dropout_rate=0.2), digits, make_config(num_epochs=3))
    losses = [epoch.train.loss for epoch in history]
    assert losses == pytest.approx(GOLDEN_LOSSES, rel=1e-3)
    assert history[-1].validation is not None
    assert history[-1].validation.accuracy == pytest.approx(GOLDEN_ACCURACY, abs=0.01)


GOLDEN_LOSSES = [1.81801, 1.03931, 0.72285]
GOLDEN_ACCURACY = 0.93
