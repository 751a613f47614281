"""The settings of the commands on the registry: the registered model, the store, and the bounds of the gates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_pipeline.config.coerce import coerce
from mnist_pipeline.config.compose import DATA, TRACKING, Schema, compose_values, read_section
from mnist_pipeline.config.sections import DataConfig, TrackingConfig, require_integer
from mnist_pipeline.system.errors import ConfigError


@dataclass(frozen=True)
class RegistryConfig:
    """The registered model that a command works on."""

    data: DataConfig
    """Data set of the model. A run's own copy of it is searched for first."""
    tracking: TrackingConfig
    """Store, and the experiment to search for candidates."""
    wait: bool
    """Wait if another command uses the same registered model."""

    @property
    def data_name(self) -> str:
        """Name of the data set."""
        return self.data.name

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return registered_name(self.data_name)


@dataclass(frozen=True)
class PromoteConfig:
    """`promote`: the bounds of the gates."""

    alpha: float
    """Probability, 0..1, of ever promoting a model that is not better, over all comparisons on one test split."""
    min_test_accuracy: float
    """0..1."""
    max_model_bytes: int
    """Size of the logged model's files."""
    max_recall_drop: float
    """Largest drop of the recall of any class below the champion's, 0..1."""

    def __post_init__(self) -> None:
        _require_share(self.alpha, key="promote.alpha", is_strict=True)
        _require_share(self.min_test_accuracy, key="promote.min_test_accuracy")
        require_integer(self.max_model_bytes, key="promote.max_model_bytes", minimum=1, maximum=2**62)
        _require_share(self.max_recall_drop, key="promote.max_recall_drop")


REGISTRY = Schema(config_name="registry", sections={"data": DATA, "tracking": TRACKING}, switches=("wait",))
PROMOTE = Schema(
    config_name="promote", sections={**REGISTRY.sections, "promote": {"": PromoteConfig}}, switches=("wait",)
)


def registered_name(data_name: str) -> str:
    """Return the name of the registered model for a data set."""
    return f"{data_name}-classifier"


def read(overrides: Sequence[str]) -> RegistryConfig:
    """Return the settings of a command on the registry.

    Raises:
        ConfigError: A key is unknown, or a value is wrong.
    """
    return _read(compose_values(REGISTRY, overrides))


def read_promote(overrides: Sequence[str]) -> tuple[RegistryConfig, PromoteConfig]:
    """Return the settings of `promote`.

    Raises:
        ConfigError: A key is unknown, or a value is wrong.
    """
    values = compose_values(PROMOTE, overrides)
    return _read(values), read_section(PROMOTE, "promote", values.get("promote"))


def _read(values: dict[str, object]) -> RegistryConfig:
    return RegistryConfig(
        data=read_section(REGISTRY, "data", values.get("data")),
        tracking=read_section(REGISTRY, "tracking", values.get("tracking")),
        wait=coerce(values.get("wait"), bool, key="wait"),
    )


def _require_share(value: float, *, key: str, is_strict: bool = False) -> None:
    inside = 0 < value < 1 if is_strict else 0 <= value <= 1
    if not (math.isfinite(value) and inside):
        raise ConfigError(f"{key}={value}: expected a number {'between 0 and 1' if is_strict else 'from 0 to 1'}")
