from pathlib import Path

import numpy as np
import pytest

from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue, splits
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.system.errors import ConfigError


def load(*overrides: str) -> Dataset:
    return catalogue.load(compose.compose(list(overrides)).data)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=digits", "data.validation_size=1430"], "expected 10 to 1,427 of the 1,437 images"),
        (["data=digits", "data.validation_size=5"], "data.validation_size=5: expected 10 to 1,427"),
        (["data=mnist", "data.npz_url=ftp://x"], "data.npz_url=ftp://x: expected an http:// or https:// address"),
        (["data=mnist", "data.timeout_sec=1e12"], "data.timeout_sec=1000000000000.0: expected a number of seconds"),
        (["data=mnist", "data.num_retries=-1"], "data.num_retries=-1: expected an integer from 0 to 100"),
    ],
)
def test_values_that_the_data_cannot_have_are_bad_configuration(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)


def test_the_digits_are_always_the_same_bytes() -> None:
    dataset = load("data=digits")
    assert dataset.digest == "df73115a9f16d9614f64450f707cf18cce8653c251973d46a9397adc9e4bce84"
    assert dataset.train.digest.startswith("6fc91e9f")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 1137,
        "validation": 300,
        "test": 360,
    }
    assert dataset.image_shape == (28, 28)
    assert dataset.num_classes == 10
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32


def test_a_digit_is_an_enlarged_8x8_image() -> None:
    images = load("data=digits").train.images
    image = images[0]
    assert image[:2].max() == image[-2:].max() == image[:, :2].max() == image[:, -2:].max() == 0
    blocks = image[2:26, 2:26].reshape(8, 3, 8, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert images.max() == 255


def test_the_splits_share_no_image_and_lose_none() -> None:
    whole, held_out = load("data=digits", "data.validation_size=0"), load("data=digits")
    assert whole.validation is None
    assert held_out.validation is not None
    together = np.concatenate([held_out.train.images, held_out.validation.images])

    def rows(images: np.ndarray) -> list[bytes]:
        return sorted(image.tobytes() for image in images)

    assert rows(together) == rows(whole.train.images)
    np.testing.assert_array_equal(held_out.test.images, whole.test.images)
    assert held_out.digest == whole.digest


def test_validation_keeps_the_proportions_of_the_classes() -> None:
    dataset = load("data=digits")
    assert dataset.validation is not None
    assert np.bincount(dataset.validation.labels).tolist() == [30, 30, 30, 31, 30, 30, 30, 30, 29, 30]
    counts = splits.count_classes(dataset)
    assert counts.columns.tolist() == ["class", "train", "validation", "test"]
    assert counts[["train", "validation", "test"]].sum().tolist() == [1137, 300, 360]


def test_the_split_follows_its_seed() -> None:
    first, again, other = (load("data=digits", f"data.split_seed={seed}") for seed in (0, 0, 1))
    assert first.train.digest == again.train.digest
    assert first.train.digest != other.train.digest
    assert first.test.digest == other.test.digest


def test_the_real_mnist_is_split(mnist_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(mnist_dir))
    dataset = load()
    assert {name: split.images.shape for name, split in dataset.splits.items()} == {
        "train": (55000, 28, 28),
        "validation": (5000, 28, 28),
        "test": (10000, 28, 28),
    }
    assert dataset.digest == "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
    counts = splits.count_classes(dataset)
    assert (counts["train"] + counts["validation"]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
