"""The settings of a sweep, as dataclasses that check themselves. Optuna is not imported here."""

import enum
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le

from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.coerce import fill
from mnist_pipeline.config.compose import RUN, SPACE, Schema, compose_values, read_component, read_run
from mnist_pipeline.config.sections import Config
from mnist_pipeline.sweep.space import Option, Space, parse_space
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address

METRICS = ("validation/accuracy", "validation/loss", "train/accuracy", "train/loss")


class Direction(enum.Enum):
    """Whether a larger or a smaller metric is better."""

    maximize = "maximize"
    minimize = "minimize"


class Sampler(enum.Enum):
    """How the next trial is proposed."""

    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(enum.Enum):
    """How unpromising trials are ended early."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


@dataclass
class ConfirmConfig:
    """`sweep.confirm`: how the best trials are compared with the baseline again."""

    top_k: Annotated[int, Ge(1), Le(100)]
    """Best trials that are trained again, beside the baseline."""
    num_seeds: Annotated[int, Ge(2), Le(1000)]
    """Fresh pairs of a train seed and a split seed, the same for all of them, before each look at the differences."""
    max_seeds: Annotated[int, Ge(2), Le(1000)]
    """Pairs after which the last look is, for candidates whose case is not clear before."""
    min_gain: Annotated[float, Ge(0), Le(1e6)]
    """The least difference of the metric that is worth having; a candidate that is sure to have less is dropped."""

    def __post_init__(self) -> None:
        if self.max_seeds < self.num_seeds:
            raise ConfigError(
                f"sweep.confirm.max_seeds={self.max_seeds}: expected at least sweep.confirm.num_seeds={self.num_seeds}"
            )


@dataclass
class SweepConfig:
    """`sweep`: the space, and how it is searched."""

    study: str | None
    """Name of the study, which is continued if it exists; null: derived from everything that decides its results."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)]
    """Seed of the sampler and of the confirmation's pairs of seeds."""
    num_trials: Annotated[int, Ge(1), Le(2**31 - 1)]
    """Trials to complete or prune, including those of earlier commands."""
    num_workers: Annotated[int, Ge(1), Le(256)] | None
    """Workers that train at once; null: one per core, or as many as a cluster has room for."""
    timeout_sec: float | None
    """Seconds after which no more trials start; null: no limit."""
    max_failures: Annotated[int, Ge(0), Le(2**31 - 1)]
    """Failed trials that are replaced before the sweep fails."""
    storage: Address | None
    """Path of a journal file, or URL of SQLite or PostgreSQL; null: a journal under `mlruns/optuna/`."""
    patience_sec: Annotated[float, Ge(0), Le(1e6)]
    """Seconds for which the sweep waits for a database or a tracking server that is away."""
    metric: str
    """The metric to optimise, at a trial's last epoch, or at the one that early stopping kept."""
    direction: Direction
    sampler: Sampler
    pruner: Pruner
    space: Space
    confirm: ConfirmConfig | None
    """null: no confirmation."""

    def __post_init__(self) -> None:
        if self.timeout_sec is not None and not 0 < self.timeout_sec < math.inf:
            raise ConfigError(f"sweep.timeout_sec={self.timeout_sec}: expected a number of seconds above 0, or null")
        if self.study is not None and not re.fullmatch(r"[\w][\w .+-]{0,99}", self.study):
            raise ConfigError(f"sweep.study={self.study}: expected 1 to 100 letters, digits, blanks or _.+-, or null")
        if self.metric not in METRICS:
            raise ConfigError(f"sweep.metric={self.metric}: expected {' or '.join(METRICS)}")
        if not self.space:
            raise ConfigError("sweep.space is empty: give it a key, e.g. sweep=default")
        if self.sampler is Sampler.grid:
            for key, dimension in self.space.items():
                if dimension.values() is None:
                    raise ConfigError(f"sweep.space.{key}: a grid needs type=categorical or a step, and no log=true")


SWEEP = Schema(
    config_name="sweep",
    sections={**RUN.sections, "sweep": SweepConfig},
    switches=RUN.switches,
    free_prefixes=("sweep.space.",),
    several_values="belong in sweep.space",
)


def compose_sweep(overrides: Sequence[str], *, config_dir: str | None = None) -> tuple[Config, SweepConfig]:
    """Return the baseline's configuration and the checked `sweep` section.

    Raises:
        ConfigError: Any of it is wrong.
    """
    values = compose_values(SWEEP, overrides, config_dir=config_dir)
    base = read_run(values)
    section = values.get("sweep")
    if not isinstance(section, dict):
        raise ConfigError(f"sweep={section}: expected a section of keys, e.g. sweep=default")
    fixed = [given.group_of(override).replace("/", ".") for override in given.parse(overrides)]

    def find_option(group: str, name: str) -> Option:
        if base.components()[group].name == name:
            composed = values
        else:
            searched = [word for word in overrides if word.startswith("hydra.searchpath")]
            chosen = f"{group.replace('.', '/')}={name}"
            composed = compose_values(SWEEP, [*searched, chosen], config_dir=config_dir)
        own: Any = composed
        for part in group.split("."):
            own = own[part]
        return Option(read_component(group.replace(".", "/"), own), own.get(SPACE) or {})

    return base, read(section, base, fixed=fixed, find_option=find_option)


def read(
    values: Mapping[str, Any], base: Config, *, fixed: Sequence[str], find_option: Callable[[str, str], Option]
) -> SweepConfig:
    """Return the checked `sweep` section.

    Args:
        values: The section as it was composed.
        base: The baseline, with everything that holds for every trial.
        fixed: The keys that the command line overrides.
        find_option: As for `parse_space`.

    Raises:
        ConfigError: A key is unknown, a value is wrong, a range is empty, or two of them contradict each other.
    """
    nested = values.get("space")
    if not isinstance(nested, dict):
        raise ConfigError("sweep.space is empty: give it a key, e.g. sweep=default")
    space = parse_space(nested, base, find_option)
    rest = {key: value for key, value in values.items() if key != "space"}
    config: SweepConfig = fill(SweepConfig, rest, prefix="sweep", space=space)
    for key in config.space:
        if key in fixed:
            raise ConfigError(f"{key}: is swept; leave it out, or remove it from the space with ~sweep.space.{key}")
    if "train.num_threads" in fixed:
        raise ConfigError("train.num_threads: every worker of a sweep has one; set sweep.num_workers instead")
    if "executor.num_workers" in fixed:
        raise ConfigError("executor.num_workers: is for the runs of a --multirun; set sweep.num_workers instead")
    if base.data.validation_size == 0 and (config.metric.startswith("validation/") or config.confirm is not None):
        raise ConfigError("data.validation_size=0: a sweep needs validation images; hold some out")
    return config
