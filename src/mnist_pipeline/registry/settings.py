"""The settings of the commands on the registry: the registered model, the store, and the bounds of the gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from mnist_pipeline.config.coerce import coerce
from mnist_pipeline.config.compose import Schema, compose_values, list_options, read_section
from mnist_pipeline.config.sections import DataConfig, TrackingConfig

_Share = Annotated[float, Ge(0), Le(1)]


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

    alpha: Annotated[float, Gt(0), Lt(1)]
    """Probability, 0..1, of ever promoting a model that is not better, over all comparisons on one test split."""
    min_test_accuracy: _Share
    max_model_bytes: Annotated[int, Ge(1), Le(2**62)]
    """Size of the logged model's files."""
    max_recall_drop: _Share
    """Largest drop of the recall of any class below the champion's, 0..1."""


REGISTRY = Schema(config_name="registry", sections={"data": DataConfig, "tracking": TrackingConfig}, switches=("wait",))
PROMOTE = Schema(config_name="promote", sections={**REGISTRY.sections, "promote": PromoteConfig}, switches=("wait",))


def registered_name(data_name: str) -> str:
    """Return the name of the registered model for a data set."""
    return f"{data_name}-classifier"


def select(data_name: str) -> str:
    """Return the override by which a command finds the registered model of a data set."""
    return f"{'data' if data_name in list_options('data') else 'data.name'}={data_name}"


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
