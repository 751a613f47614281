"""The configuration: one dataclass per section. `compose.py` fills them from `conf/` and the command line.

The YAML files hold the values; the dataclasses hold types, units, meaning and checks. Nothing heavy is imported, so
that a wrong configuration is reported at once.
"""

import dataclasses
import enum
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import OmegaConf

from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address


def _require(condition: bool, *, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


def require_integer(value: int, *, key: str, minimum: int, maximum: int = 2**31 - 1) -> None:
    """Raise ConfigError where `value` is not in the range."""
    _require(minimum <= value <= maximum, key=key, value=value, expected=f"an integer from {minimum:,} to {maximum:,}")


def _require_validation_size(value: int, *, num_images: int, num_classes: int) -> None:
    largest = num_images - num_classes
    _require(
        value == 0 or num_classes <= value <= largest,
        key="data.validation_size",
        value=value,
        expected=f"0 (no validation split) or {num_classes} to {largest:,} of the {num_images:,} images",
    )


class Fallback(enum.Enum):
    """The data set to use if MNIST is not available."""

    digits = "digits"


@dataclass
class MnistConfig:
    """`data=mnist`: the real MNIST, found on disk or downloaded."""

    NUM_IMAGES: ClassVar[int] = 60_000
    NUM_CLASSES: ClassVar[int] = 10

    name: str
    validation_size: int
    """Validation images held out of the 60,000, stratified by class; 0 for none."""
    split_seed: int
    """Seed of the choice of the validation images."""
    fallback: Fallback | None
    """Data set to use if MNIST is not available; null: fail."""
    npz_url: Address
    """Mirror of `mnist.npz` in Keras's layout."""
    idx_url: Address
    """Mirror of the four gzipped IDX files: the folder's address."""
    timeout_sec: float
    """Seconds without an answer after which a download fails."""
    num_retries: int
    """Further attempts per file before the next mirror is tried."""

    def __post_init__(self) -> None:
        _require_validation_size(self.validation_size, num_images=self.NUM_IMAGES, num_classes=self.NUM_CLASSES)
        require_integer(self.split_seed, key="data.split_seed", minimum=0)
        _require(
            0 < self.timeout_sec <= 3600,
            key="data.timeout_sec",
            value=self.timeout_sec,
            expected="a number of seconds above 0, at most 3600",
        )
        require_integer(self.num_retries, key="data.num_retries", minimum=0, maximum=100)
        for key, url in (("data.npz_url", self.npz_url), ("data.idx_url", self.idx_url)):
            _require(url.is_server, key=key, value=url, expected="an http:// or https:// address")


@dataclass
class DigitsConfig:
    """`data=digits`: the handwritten digits that scikit-learn carries."""

    NUM_IMAGES: ClassVar[int] = 1_437
    NUM_CLASSES: ClassVar[int] = 10

    name: str
    validation_size: int
    """Validation images held out of the 1,437, stratified by class; 0 for none."""
    split_seed: int
    """Seed of the choice of the validation images."""

    def __post_init__(self) -> None:
        _require_validation_size(self.validation_size, num_images=self.NUM_IMAGES, num_classes=self.NUM_CLASSES)
        require_integer(self.split_seed, key="data.split_seed", minimum=0)


DataConfig = MnistConfig | DigitsConfig


@dataclass
class ModelConfig:
    """`model=dense`: the baseline dense network."""

    name: str
    hidden_width: int
    """Units of the hidden layer."""
    dropout_rate: float
    """Share of the hidden units that is dropped in each training step, in [0, 1)."""

    def __post_init__(self) -> None:
        require_integer(self.hidden_width, key="model.hidden_width", minimum=1, maximum=100_000)
        _require(
            0 <= self.dropout_rate < 1,
            key="model.dropout_rate",
            value=self.dropout_rate,
            expected="a number from 0 to below 1",
        )


@dataclass
class TrainConfig:
    """`train`: Adam on sparse categorical cross-entropy from logits."""

    num_epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step; the last step of an epoch may have fewer."""
    learning_rate: float
    """Adam's step size."""
    seed: int
    """Seed of the initial weights, of the order of each epoch and of dropout."""
    num_threads: int
    """Threads of TensorFlow. The steps are so small that one thread is fastest."""
    checkpoint_every: int
    """Epochs between two checkpoints; the last epoch always has one. Does not affect the result."""

    def __post_init__(self) -> None:
        require_integer(self.num_epochs, key="train.num_epochs", minimum=1)
        require_integer(self.batch_size, key="train.batch_size", minimum=1)
        _require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            key="train.learning_rate",
            value=self.learning_rate,
            expected="a finite number above 0",
        )
        require_integer(self.seed, key="train.seed", minimum=0)
        require_integer(self.num_threads, key="train.num_threads", minimum=1, maximum=1024)
        require_integer(self.checkpoint_every, key="train.checkpoint_every", minimum=1)


@dataclass
class EvaluateConfig:
    """`evaluate`: what is computed on the test split."""

    num_calibration_bins: int
    """Bins of equal width in the reliability diagram and the expected calibration error."""
    num_mistakes: int
    """How many of the most confident mistakes are shown as images."""

    def __post_init__(self) -> None:
        require_integer(self.num_calibration_bins, key="evaluate.num_calibration_bins", minimum=1, maximum=1000)
        require_integer(self.num_mistakes, key="evaluate.num_mistakes", minimum=1, maximum=400)


@dataclass
class TrackingConfig:
    """`tracking`: where MLflow keeps the runs."""

    uri: Address | None
    """MLflow tracking URI; null: `MLFLOW_TRACKING_URI` if it is set, else the SQLite store under `mlruns/`."""
    experiment: str
    """MLflow experiment that the run belongs to."""

    def __post_init__(self) -> None:
        _require(
            0 < len(self.experiment.strip()) <= 200,
            key="tracking.experiment",
            value=self.experiment,
            expected="a name of 1 to 200 characters",
        )


@dataclass
class Config:
    """The whole configuration of a run, and what to do about other runs."""

    force: bool
    """Train again, as a new run, even if a finished run has the same fingerprint."""
    wait: bool
    """Wait if another command is making the same run, instead of failing."""
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig

    def flat(self) -> dict[str, Any]:
        """Return every section's values under their dotted keys, as Hydra's overrides and MLflow's params name them.

        Addresses are masked: what comes from here is logged.
        """
        return {
            f"{section}.{key}": _plain(value)
            for section in SECTIONS
            for key, value in vars(getattr(self, section)).items()
        }

    def addresses(self) -> dict[str, Address]:
        """Return the addresses that are given, under their dotted keys."""
        return {
            f"{section}.{key}": value
            for section in SECTIONS
            for key, value in vars(getattr(self, section)).items()
            if isinstance(value, Address)
        }

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, section by section."""
        nested = OmegaConf.create()
        for dotted, value in self.flat().items():
            OmegaConf.update(nested, dotted, value)
        return OmegaConf.to_yaml(nested)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Address) else value


SECTIONS = tuple(field.name for field in dataclasses.fields(Config) if field.type is not bool)
SWITCHES = tuple(field.name for field in dataclasses.fields(Config) if field.type is bool)

ADDRESS_KEYS = ("data.npz_url", "data.idx_url", "tracking.uri", "sweep.storage")
"""The keys whose values may hold a secret."""
