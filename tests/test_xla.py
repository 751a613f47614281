"""The epoch that XLA compiles: the same training as the other, with dropout of its own, to the same bits each time."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Config
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.train import fit, trainer
from mnist_pipeline.train.dropout import cheap_dropout
from mnist_pipeline.train.epochs import TrainState
from mnist_pipeline.train.trainer import Trainer

OPTIMIZERS = ("adam", "adamw", "lion", "nadam", "rmsprop", "sgd")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load(compose.compose(["data=digits"]).data)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LEAST_WORK", 0)


def configure(*overrides: str) -> Config:
    return compose.compose(["data=digits", "train.num_epochs=3", "model.hidden_width=32", *overrides])


def make(config: Config) -> keras.Model:
    return build(config.model, image_shape=(28, 28), num_classes=10, seed=config.train.seed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_weights_are_those_without_xla(optimizer: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure("model.dropout_rate=0", f"train/optimizer={optimizer}", "train.clip_norm=1")
    found = []
    for least_work in (trainer.LEAST_WORK, 0):
        monkeypatch.setattr(trainer, "LEAST_WORK", least_work)
        model = make(config)
        assert Trainer(model, digits.train, config.train)._uses_xla == (least_work == 0)
        history = fit.fit(model, digits, config.train)
        found.append((model.get_weights(), history[-1].train.loss))
    (plain, plain_loss), (compiled, compiled_loss) = found
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    assert compiled_loss == pytest.approx(plain_loss, rel=1e-4)


@pytest.mark.usefixtures("always")
def test_a_training_that_is_resumed_ends_with_the_same_bits(digits: Dataset) -> None:
    config = configure("model.dropout_rate=0.3")
    states: list[TrainState] = []
    whole = make(config)
    fit.fit(whole, digits, config.train, checkpoint=states.append)
    resumed = make(config)
    history = fit.fit(resumed, digits, config.train, start=states[0])
    assert [epoch.train for epoch in history] == [epoch.train for epoch in states[-1].history]
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


_TRAIN = """
import hashlib
from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.train import fit, trainer
from mnist_pipeline.train.runtime import start_tensorflow
trainer.LEAST_WORK = 0
config = compose.compose(["data=digits", "train.num_epochs=2", "model.hidden_width=32"])
start_tensorflow(config.num_threads)
model = build(config.model, image_shape=(28, 28), num_classes=10, seed=0)
fit.fit(model, catalogue.load(config.data), config.train)
print(hashlib.sha256(b"".join(one.numpy().tobytes() for one in model.variables)).hexdigest())
"""


def test_two_processes_give_the_same_bits() -> None:
    found = [subprocess.run([sys.executable, "-c", _TRAIN], capture_output=True, text=True, check=True) for _ in "ab"]
    assert found[0].stdout == found[1].stdout
    assert len(found[0].stdout.strip()) == 64


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(rate: float) -> None:
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(rate, seed=3)])
    draw = tf.function(lambda: model(tf.ones((200, 1000)), training=True), jit_compile=True, autograph=False)
    with cheap_dropout(model):
        first, second = (draw().numpy() for _ in range(2))
    error = (rate * (1 - rate) / first.size) ** 0.5
    for drawn in (first, second):
        assert (drawn == 0).mean() == pytest.approx(rate, abs=4 * error)
        np.testing.assert_allclose(drawn[drawn != 0], 1 / (1 - rate), rtol=1e-6)
    # Independent from step to step, unit to unit, and image to image.
    for one, other in ((first, second), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1])):
        assert np.corrcoef((one == 0).ravel(), (other == 0).ravel())[0, 1] == pytest.approx(0, abs=0.01)
    assert (model(tf.ones((2, 1000)), training=False).numpy() == 1).all()
    assert "call" not in vars(model.layers[0])


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "overrides", [["train.num_threads=2"], ["train.augment.rotate=10"], ["model=conv"], ["model=mlp"]]
)
def test_what_decides_the_bits_decides_the_way(overrides: list[str], digits: Dataset) -> None:
    config = compose.compose(["data=digits", *overrides])
    found = Trainer(make(config), digits.train, config.train)._uses_xla
    assert found == (overrides == ["model=mlp"])


@pytest.mark.usefixtures("always")
def test_it_learns_with_dropout(digits: Dataset) -> None:
    config = configure("model.dropout_rate=0.2", "train.num_epochs=8", "train.label_smoothing=0.1")
    history = fit.fit(make(config), digits, config.train)
    validation = history[-1].validation
    assert validation is not None
    assert validation.accuracy > 0.93, json.dumps([epoch.train.loss for epoch in history])
