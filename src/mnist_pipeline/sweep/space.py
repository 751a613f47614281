"""The settings and the space of a sweep, as dataclasses that check themselves. Optuna is not imported here."""

import dataclasses
import enum
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.coerce import coerce, fill
from mnist_pipeline.config.compose import RUN, Schema, compose_values, read_run
from mnist_pipeline.config.sections import Config, ModelConfig, TrainConfig, require_integer
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address

Value = int | float | str

SECTIONS: dict[str, type] = {"model": ModelConfig, "train": TrainConfig}
UNSWEPT = {
    "model.name": "choose it with model=",
    "train.num_threads": "every worker has one thread",
    "train.checkpoint_every": "it does not affect the result",
}
METRICS = ("validation/accuracy", "validation/loss", "train/accuracy", "train/loss")
_INTERVAL_KEYS = {"type", "low", "high", "step", "log"}
_STEP_TOLERANCE = 1e-8


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


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included.

    Attributes:
        step: Distance between the values; None: every number in between.
        log: Whether to draw on a logarithmic scale.
    """

    is_integer: bool
    low: float
    high: float
    step: float | None
    log: bool

    def describe(self) -> str:
        """Return a short description."""
        parts = [f"{self.low:g} to {self.high:g}", *([f"step {self.step:g}"] if self.step else [])]
        return ", ".join([*parts, *(["logarithmic"] if self.log else [])])

    def values(self) -> list[Value] | None:
        """Return every value, or None if there are infinitely many."""
        if self.step is None:
            return None
        num_steps = math.floor((self.high - self.low) / self.step + _STEP_TOLERANCE)
        values = [self.low + index * self.step for index in range(num_steps + 1)]
        return [int(value) for value in values] if self.is_integer else [round(value, 12) for value in values]

    def contains(self, value: Any) -> bool:
        """Return whether `value` is one of the values."""
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return bool(self.low <= value <= self.high) and abs(steps - round(steps)) < _STEP_TOLERANCE


@dataclass(frozen=True)
class Choice:
    """Unordered values."""

    choices: tuple[Value, ...]

    def describe(self) -> str:
        """Return a short description."""
        return f"one of {', '.join(map(str, self.choices))}"

    def values(self) -> list[Value] | None:
        """Return every value."""
        return list(self.choices)

    def contains(self, value: Any) -> bool:
        """Return whether `value` is one of the choices."""
        return value in self.choices


Dimension = Interval | Choice
Space = dict[str, Dimension]
"""The dimensions by the dotted keys that they sweep, in alphabetical order."""


@dataclass
class ConfirmConfig:
    """`sweep.confirm`: how the best trials are compared with the baseline again."""

    top_k: int
    """Best trials that are trained again, beside the baseline."""
    num_seeds: int
    """Fresh pairs of a train seed and a split seed, the same for all of them."""

    def __post_init__(self) -> None:
        require_integer(self.top_k, key="sweep.confirm.top_k", minimum=1, maximum=100)
        require_integer(self.num_seeds, key="sweep.confirm.num_seeds", minimum=2, maximum=1000)


@dataclass
class SweepConfig:
    """`sweep`: the space, and how it is searched."""

    study: str | None
    """Name of the study, which is continued if it exists; null: derived from everything that decides its results."""
    seed: int
    """Seed of the sampler and of the confirmation's pairs of seeds."""
    num_trials: int
    """Trials to complete or prune, including those of earlier commands."""
    num_workers: int | None
    """Processes that train; null: one per core."""
    timeout_sec: float | None
    """Seconds after which no more trials start; null: no limit."""
    max_failures: int
    """Failed trials that are replaced before the sweep fails."""
    storage: Address | None
    """Path of a journal file or URL of a database; null: a journal under `mlruns/optuna/`."""
    metric: str
    """The metric to optimise, at a trial's last epoch."""
    direction: Direction
    sampler: Sampler
    pruner: Pruner
    space: Space
    confirm: ConfirmConfig | None
    """null: no confirmation."""

    def __post_init__(self) -> None:
        require_integer(self.seed, key="sweep.seed", minimum=0)
        require_integer(self.num_trials, key="sweep.num_trials", minimum=1)
        require_integer(self.max_failures, key="sweep.max_failures", minimum=0)
        if self.num_workers is not None:
            require_integer(self.num_workers, key="sweep.num_workers", minimum=1, maximum=256)
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
    sections={**RUN.sections, "sweep": {"": SweepConfig}},
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
    fixed = [override.key_or_group for override in given.parse(overrides)]
    section = values.get("sweep")
    if not isinstance(section, dict):
        raise ConfigError(f"sweep={section}: expected a section of keys, e.g. sweep=default")
    return base, read(section, base, fixed=fixed)


def read(values: Mapping[str, Any], base: Config, *, fixed: Sequence[str]) -> SweepConfig:
    """Return the checked `sweep` section.

    Args:
        values: The section as it was composed.
        base: The baseline, with everything that holds for every trial.
        fixed: The keys that the command line overrides.

    Raises:
        ConfigError: A key is unknown, a value is wrong, a range is empty, or two of them contradict each other.
    """
    space = parse_space(values.get("space") or {}, base)
    rest = {key: value for key, value in values.items() if key != "space"}
    config: SweepConfig = fill(SweepConfig, rest, prefix="sweep", space=space)
    for key in config.space:
        if key in fixed:
            raise ConfigError(f"{key}: is swept; leave it out, or remove it from the space with ~sweep.space.{key}")
    for key in fixed:
        if key == "train.num_threads":
            raise ConfigError("train.num_threads: every worker of a sweep has one; set sweep.num_workers instead")
    if base.data.validation_size == 0 and (config.metric.startswith("validation/") or config.confirm is not None):
        raise ConfigError("data.validation_size=0: a sweep needs validation images; hold some out")
    return config


def parse_space(nested: Mapping[str, Any], base: Config) -> Space:
    """Return the checked space of `sweep.space`, whose keys are sections and then their keys.

    Raises:
        ConfigError: A key cannot be swept, a range is empty, or a value is not allowed for its key.
    """
    space: Space = {}
    for section, keys in nested.items():
        if section not in SECTIONS or not isinstance(keys, Mapping):
            raise ConfigError(f"sweep.space.{section}: expected keys of {' or '.join(SECTIONS)}")
        hints = typing.get_type_hints(SECTIONS[section])
        for key, described in keys.items():
            dotted = f"{section}.{key}"
            if dotted in UNSWEPT:
                raise ConfigError(f"sweep.space.{dotted}: cannot be swept ({UNSWEPT[dotted]})")
            if key not in {field.name for field in dataclasses.fields(SECTIONS[section])}:
                raise ConfigError(f"sweep.space.{dotted}: unknown key; mnist-pipeline train --cfg job shows every key")
            space[dotted] = _parse_dimension(dotted, described, kind=hints[key])
            for value in _extremes(space[dotted]):
                apply(base, {dotted: value})
    return dict(sorted(space.items()))


def _parse_dimension(dotted: str, described: Any, *, kind: type) -> Dimension:
    name = f"sweep.space.{dotted}"
    if isinstance(described, Mapping):
        described = {key: value for key, value in described.items() if value is not None}  # null: not given
    if not isinstance(described, Mapping) or described.get("type") not in ("int", "float", "categorical"):
        raise ConfigError(f"{name}: expected type: int, float or categorical, with low and high or with choices")
    if described["type"] == "categorical":
        choices = described.get("choices")
        if set(described) != {"type", "choices"} or not isinstance(choices, list) or not choices:
            raise ConfigError(f"{name}: expected choices, a list of one or more values, and nothing else")
        if len(set(choices)) < len(choices):
            raise ConfigError(f"{name}.choices={choices}: expected each value once")
        return Choice(tuple(coerce(choice, kind, key=f"{name}.choices") for choice in choices))
    unknown = set(described) - _INTERVAL_KEYS
    if unknown:
        raise ConfigError(f"{name}.{min(unknown)}: unknown key; expected low, high, step or log")
    if described["type"] == "float" and kind is int:
        raise ConfigError(f"{name}.type=float: expected int, as {dotted} is an integer")
    number = int if described["type"] == "int" else float
    low, high = (coerce(described.get(end), number, key=f"{name}.{end}") for end in ("low", "high"))
    log = described.get("log", False)
    step = described.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"{name}.log={log}: expected true or false")
    if step is not None:
        step = coerce(step, number, key=f"{name}.step")
        if step <= 0 or log:
            raise ConfigError(f"{name}.step={step}: expected a number above 0, and log=false")
    elif number is int and not log:
        step = 1
    if not low <= high:
        raise ConfigError(f"{name}: the range from low={low:g} to high={high:g} is empty")
    if log and low <= 0:
        raise ConfigError(f"{name}.low={low:g}: expected a number above 0, as log=true")
    return Interval(is_integer=number is int, low=low, high=high, step=step, log=log)


def _extremes(dimension: Dimension) -> list[Any]:
    if isinstance(dimension, Choice):
        return list(dimension.choices)
    return [int(end) if dimension.is_integer else end for end in (dimension.low, dimension.high)]


def apply(base: Config, params: Mapping[str, Any]) -> Config:
    """Return `base` with the values of a trial, each under its dotted key.

    Raises:
        ConfigError: A value is not allowed for its key.
    """
    changed: dict[str, dict[str, Any]] = {}
    for dotted, value in params.items():
        section, _, key = dotted.partition(".")
        changed.setdefault(section, {})[key] = value
    sections = {section: dataclasses.replace(getattr(base, section), **values) for section, values in changed.items()}
    return dataclasses.replace(base, **sections)


def read_params(config: Config, space: Space) -> dict[str, Any]:
    """Return the values that `config` has for the swept keys."""
    flat = config.flat()
    return {key: flat[key] for key in space}
