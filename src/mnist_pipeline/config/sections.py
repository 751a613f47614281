"""The configuration: one dataclass per section. `compose.py` fills them from `conf/` and the command line.

The YAML files hold the values; the dataclasses hold types, units, meaning and checks. Nothing heavy is imported, so
that a wrong configuration is reported at once.
"""

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address


def _require(condition: bool, *, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


def require_integer(value: int, *, key: str, minimum: int, maximum: int = 2**31 - 1) -> None:
    """Raise ConfigError where `value` is not in the range."""
    _require(minimum <= value <= maximum, key=key, value=value, expected=f"an integer from {minimum:,} to {maximum:,}")


class Fallback(enum.Enum):
    """The data set to use if the requested one is not available."""

    digits = "digits"


@dataclass
class DataConfig:
    """`data`: which data set, and how it is split. Further keys are the parameters of the option's own function."""

    option: str
    """The option that was chosen with `data=`."""
    target: str
    """Dotted name of the function that loads the data, `_target_` in YAML."""
    arguments: Mapping[str, Any]
    """Its keyword arguments."""
    name: str
    """Of the data set, and so of its experiment and its registered model."""
    validation_size: int | float = 0.1
    """Validation images held out of those that are not for the test, stratified by class: their number, or their share
    in (0, 1); 0 for none. A validation split that the data brings is kept."""
    split_seed: int = 0
    """Seed of the choice of the validation images."""
    test_size: int | float | None = None
    """Test images, a number or a share, stratified by class, where the data brings no test split; null: a fifth."""
    test_seed: int = 0
    """Seed of the choice of the test images. Another test split is another data set: its runs are not comparable."""
    fallback: Fallback | None = None
    """Data set to use if this one is not available; null: fail."""

    def __post_init__(self) -> None:
        _require(
            bool(re.fullmatch(r"[\w.-][\w. -]{0,99}", self.name)) and not set(self.name) <= {".", " "},
            key="data.name",
            value=self.name,
            expected="a name of 1 to 100 letters, digits, dots, dashes and blanks",
        )
        _require_size(self.validation_size, key="data.validation_size", minimum=0)
        if self.test_size is not None:
            _require_size(self.test_size, key="data.test_size", minimum=1)
        require_integer(self.split_seed, key="data.split_seed", minimum=0)
        require_integer(self.test_seed, key="data.test_seed", minimum=0)

    def values(self) -> dict[str, Any]:
        """Return the values by their keys in YAML, without `_target_` and what does not apply."""
        always = {"name": self.name, "validation_size": self.validation_size, "split_seed": self.split_seed}
        others = {"test_size": self.test_size, "test_seed": self.test_seed, "fallback": self.fallback}
        return {**always, **{key: value for key, value in others.items() if value}, **self.arguments}


def _require_size(value: float, *, key: str, minimum: int) -> None:
    is_share = isinstance(value, float)
    _require(
        0 < value < 1 if is_share and value else minimum <= value < 2**31,
        key=key,
        value=value,
        expected=f"a number of images from {minimum}, or a share between 0 and 1",
    )


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
        return {f"{section}.{key}": _plain(value) for section, key, value in self._values()}

    def addresses(self) -> dict[str, Address]:
        """Return the addresses that are given, under their dotted keys."""
        return {f"{section}.{key}": value for section, key, value in self._values() if isinstance(value, Address)}

    def _values(self) -> Iterator[tuple[str, str, Any]]:
        for section in SECTIONS:
            config = getattr(self, section)
            values = config.values() if isinstance(config, DataConfig) else vars(config)
            yield from ((section, key, value) for key, value in values.items())

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, section by section."""
        nested = OmegaConf.create({"data": {"option": self.data.option, "_target_": self.data.target}})
        for dotted, value in self.flat().items():
            OmegaConf.update(nested, dotted, value)
        return OmegaConf.to_yaml(nested)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Address) else value


SECTIONS = tuple(field.name for field in dataclasses.fields(Config) if field.type is not bool)
SWITCHES = tuple(field.name for field in dataclasses.fields(Config) if field.type is bool)

ADDRESS_KEYS = ("data.npz_url", "data.idx_url", "data.url", "data.second_url", "tracking.uri", "sweep.storage")
"""The keys whose values may hold a secret."""
