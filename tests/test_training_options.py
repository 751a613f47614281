"""`train.optimizer`, `schedule`, `clip_norm`, `label_smoothing`, `class_weight`, `early_stopping` and `augment`."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Dataset, Split
from mnist_pipeline.model import conv, dense
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.train import early_stopping, fit
from mnist_pipeline.train.augmentation import augment, describe_risk
from mnist_pipeline.train.epochs import Epoch, TrainState


def make_config(*overrides: str) -> TrainConfig:
    return compose.compose(["train.num_epochs=2", "train.num_threads=1", *overrides]).train


def make_model() -> keras.Model:
    return dense.build(hidden_width=16, dropout_rate=0.0, image_shape=(28, 28), num_classes=10, seed=0)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load(compose.compose(["data=digits"]).data)


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    split = Split(digits.train.images[:150], digits.train.labels[:150])
    return Dataset(**{**vars(digits), "train": split})


def train_in_keras(
    dataset: Dataset, optimizer: keras.optimizers.Optimizer, loss: keras.Loss, **how: object
) -> keras.Model:
    model = make_model()
    model.compile(optimizer, loss)
    for number in (1, 2):
        order = fit.epoch_order(len(dataset.train), seed=0, epoch=number)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            model.train_on_batch(dataset.train.images[batch], dataset.train.labels[batch], **how)
    return model


def require_same(ours: keras.Model, theirs: keras.Model) -> None:
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


PLAIN = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DECAY = keras.optimizers.schedules
SAME: dict[str, tuple[list[str], Callable[[], keras.optimizers.Optimizer]]] = {
    "adam": (["train.optimizer.beta_1=0.8"], lambda: keras.optimizers.Adam(0.001, beta_1=0.8)),
    "adamw": (["train.optimizer=adamw"], lambda: keras.optimizers.AdamW(0.001, weight_decay=0.004)),
    "sgd": (["train.optimizer=sgd"], lambda: keras.optimizers.SGD(0.001, momentum=0.9)),
    "nesterov": (
        ["train.optimizer=sgd", "train.optimizer.nesterov=true"],
        lambda: keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True),
    ),
    "plain sgd": (["train.optimizer=sgd", "train.optimizer.momentum=0"], lambda: keras.optimizers.SGD(0.001)),
    "rmsprop": (
        ["train.optimizer=rmsprop", "train.optimizer.momentum=0.5"],
        lambda: keras.optimizers.RMSprop(0.001, momentum=0.5),
    ),
    "nadam": (["train.optimizer=nadam"], lambda: keras.optimizers.Nadam(0.001)),
    "lion": (["train.optimizer=lion"], lambda: keras.optimizers.Lion(0.001)),
    "cosine": (["train.schedule=cosine"], lambda: keras.optimizers.Adam(DECAY.CosineDecay(0.001, 10))),
    "cosine with warm-up": (
        ["train.schedule=cosine", "train.schedule.warmup_epochs=1", "train.schedule.final=0.1"],
        lambda: keras.optimizers.Adam(DECAY.CosineDecay(0.0, 5, alpha=0.1, warmup_target=0.001, warmup_steps=5)),
    ),
    "linear": (["train.schedule=linear"], lambda: keras.optimizers.Adam(DECAY.PolynomialDecay(0.001, 10, 0.0))),
    "exponential": (
        ["train.schedule=exponential", "train.schedule.factor=0.5"],
        lambda: keras.optimizers.Adam(DECAY.ExponentialDecay(0.001, 5, 0.5)),
    ),
    "stairs": (
        ["train.schedule=stairs", "train.schedule.every=1"],
        lambda: keras.optimizers.Adam(DECAY.ExponentialDecay(0.001, 5, 0.1, staircase=True)),
    ),
    "clipping": (["train.clip_norm=0.5"], lambda: keras.optimizers.Adam(0.001, global_clipnorm=0.5)),
}


@pytest.mark.parametrize("name", SAME)
def test_steps_are_those_of_keras(name: str, few: Dataset) -> None:
    overrides, make = SAME[name]
    ours = make_model()
    fit.fit(ours, few, make_config(*overrides))
    require_same(ours, train_in_keras(few, make(), PLAIN))


def test_smoothed_labels_are_those_of_keras(few: Dataset) -> None:
    ours = make_model()
    fit.fit(ours, few, make_config("train.label_smoothing=0.1"))
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    one_hot = Split(few.train.images, np.eye(10, dtype=np.int32)[few.train.labels])
    require_same(
        ours, train_in_keras(Dataset(**{**vars(few), "train": one_hot}), keras.optimizers.Adam(0.001), smoothed)
    )


def test_balanced_classes_are_weighted_as_in_keras(few: Dataset) -> None:
    ours = make_model()
    fit.fit(ours, few, make_config("train.class_weight=balanced"))
    counts = np.bincount(few.train.labels, minlength=10)
    weights = {label: len(few.train) / (10 * count) for label, count in enumerate(counts)}
    require_same(ours, train_in_keras(few, keras.optimizers.Adam(0.001), PLAIN, class_weight=weights))


def test_an_optimiser_that_keras_would_schedule_itself_is_refused(
    few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnist_pipeline.train import optimizers

    scheduled = keras.optimizers.Adam(DECAY.CosineDecay(0.001, 10))
    with pytest.raises(ConfigError, match=r"choose one with train\.schedule="):
        optimizers.start(scheduled, make_model().trainable_variables, name="mine")
    with pytest.raises(ConfigError, match="returned str: expected an optimiser of Keras"):
        optimizers.start("adam", make_model().trainable_variables, name="mine")


@pytest.mark.parametrize(
    ("values", "min_delta", "best", "over"),
    [
        ([3.0, 2.0, 1.0], 0.0, 3, False),
        ([1.0, 2.0], 0.0, 1, False),
        ([1.0, 2.0, 2.0], 0.0, 1, True),
        ([3.0, 2.0, 2.0, 2.0], 0.0, 2, True),
        ([3.0, 2.9, 2.8], 0.15, 3, False),
        ([3.0, 2.9, 2.9], 0.15, 1, True),
    ],
)
def test_early_stopping_worked_by_hand(values: Sequence[float], min_delta: float, best: int, over: bool) -> None:
    config = make_config(
        "train.early_stopping.patience=2", f"train.early_stopping.min_delta={min_delta}"
    ).early_stopping
    assert early_stopping.find_best(values, config) == best
    assert early_stopping.is_over(values, config) is over
    rising = make_config("train.early_stopping.patience=2", "train.early_stopping.metric=train/accuracy").early_stopping
    assert early_stopping.find_best([0.1, 0.3, 0.2], rising) == 2


STOPPING = ("train.num_epochs=30", "train.early_stopping.patience=2", "train.learning_rate=0.02")


def test_the_model_is_that_of_the_kept_epoch(few: Dataset) -> None:
    config, model = make_config(*STOPPING), make_model()
    history = fit.fit(model, few, config)
    kept = fit.find_kept_epoch(history, config)
    assert kept == len(history) - 2 < 28
    assert few.validation is not None
    assert fit.score_split(model, few.validation) == history[kept - 1].validation

    last = make_model()
    everything = fit.fit(last, few, make_config(*STOPPING, "train.early_stopping.restore_best=false"))
    assert [epoch.train for epoch in everything] == [epoch.train for epoch in history]
    assert fit.score_split(last, few.validation) == everything[-1].validation


class KilledError(Exception):
    pass


def conv_model() -> keras.Model:
    return conv.build(filters=(4, 8), image_shape=(28, 28), num_classes=10, seed=0)


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (make_model, STOPPING),
        (
            conv_model,
            ["train.num_epochs=4", "train.augment.rotate=10", "train.augment.shift=0.1", "train.optimizer=nadam"],
        ),
    ],
)
@pytest.mark.parametrize("killed_after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_resumed_training_ends_with_the_same_bits(
    make: Callable[[], keras.Model], overrides: Sequence[str], killed_after: int, few: Dataset
) -> None:
    config, whole = make_config(*overrides), make()
    history = fit.fit(whole, few, config)
    states: list[TrainState] = []

    def kill(epoch: Epoch) -> None:
        if epoch.number == killed_after:
            raise KilledError

    with pytest.raises(KilledError):
        fit.fit(make(), few, config, checkpoint=states.append, on_epoch=kill)
    resumed = make()
    again = fit.fit(resumed, few, config, start=states[-1])
    assert [(epoch.train, epoch.validation) for epoch in again] == [(one.train, one.validation) for one in history]
    for mine, other in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())


def test_a_training_that_was_stopped_early_does_not_go_on(few: Dataset) -> None:
    states: list[TrainState] = []
    config = make_config(*STOPPING)
    model = make_model()
    history = fit.fit(model, few, config, checkpoint=states.append)
    again = make_model()
    assert fit.fit(again, few, config, start=states[-1]) == history
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def change(images: np.ndarray, *overrides: str, seed: int = 0) -> np.ndarray:
    config = make_config(*(f"train.augment.{override}" for override in overrides)).augment
    return np.asarray(augment(tf.constant(images), config, tf.constant([seed, 1], tf.int64)))


@pytest.mark.parametrize("shape", [(40, 6, 9), (40, 6, 9, 3)])
def test_a_flip_moves_pixels_and_changes_none(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for name, axes in (("horizontal", (2,)), ("vertical", (1,))):
        found = change(images, f"flip={name}")
        same = np.array([np.array_equal(one, other) for one, other in zip(found, images, strict=True)])
        mirrored = np.flip(images, axes)
        assert 5 < same.sum() < 35
        np.testing.assert_array_equal(found[~same], mirrored[~same])


def test_changes_are_a_function_of_the_seed_and_stay_in_their_range() -> None:
    images = np.zeros((200, 21, 21), np.uint8)
    images[:, 10, 10] = 255
    found = change(images, "shift=0.2")
    np.testing.assert_array_equal(found, change(images, "shift=0.2"))
    assert not np.array_equal(found, change(images, "shift=0.2", seed=1))
    rows, columns = np.nonzero(found.max(axis=0) > 20)
    assert min(rows.min(), columns.min()) >= 10 - 5
    assert max(rows.max(), columns.max()) <= 10 + 5
    assert found.shape == images.shape
    assert found.dtype == np.uint8


def test_rotation_keeps_the_centre_and_contrast_keeps_the_mean() -> None:
    images = np.zeros((50, 21, 21), np.uint8)
    images[:, 9:12, 9:12] = 255
    assert (change(images, "rotate=45")[:, 10, 10] == 255).all()
    grey = np.full((50, 8, 8), 100, np.uint8)
    grey[:, :4] = 140
    contrasted = change(grey, "contrast=0.5")
    np.testing.assert_allclose(contrasted.mean(axis=(1, 2)), 120, atol=0.6)
    assert len({int(image[0, 0]) for image in contrasted}) > 10


def test_a_six_that_may_become_a_nine_is_reported() -> None:
    digits = tuple("0123456789")
    for override in ("flip=both", "flip=horizontal", "rotate=180"):
        assert describe_risk(make_config(f"train.augment.{override}").augment, digits)
        assert describe_risk(make_config(f"train.augment.{override}").augment, ("cat", "dog")) is None
    assert describe_risk(make_config("train.augment.rotate=15").augment, digits) is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer=adma", "train.optimizer=adma: no such option; expected adam or"),
        ("train.optimizer.momentum=0.9", "unknown key train.optimizer.momentum: expected train.optimizer.beta_1"),
        ("train.schedule.final=0.1", "unknown key train.schedule.final"),
        ("train.augment.flip=up", "train.augment.flip=up: expected none or horizontal or vertical or both"),
        ("train.augment.shift=1", "train.augment.shift=1: expected a finite number from 0 and below 1"),
        ("train.early_stopping.patience=0", "train.early_stopping.patience=0: expected an integer from 1 or null"),
        ("train.early_stopping.metric=loss", "expected validation/loss or validation/accuracy or"),
        ("train.clip_norm=0", "train.clip_norm=0: expected a finite number above 0 or null"),
        ("train.class_weight=heavy", "train.class_weight=heavy: expected balanced or null"),
    ],
)
def test_wrong_settings_are_refused_before_anything_heavy_is_imported(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
