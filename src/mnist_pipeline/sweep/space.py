"""The space of a sweep: the values of each swept key, as plain values that check themselves.

A sweep over models, or over optimisers, has keys that count only where their option is chosen: `model.conv.filters` is
the key `model.filters` of trials with `model=conv`. Optuna is not imported here.
"""

import dataclasses
import enum
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_pipeline.config.changes import find_hint, with_values
from mnist_pipeline.config.coerce import coerce
from mnist_pipeline.config.sections import Component, Config
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.hints import command

Value = int | float | str | bool | None

SECTIONS = ("model", "train")
UNSWEPT = {
    "model.name": "choose it with model=",
    "train.num_threads": "every worker has one thread",
    "train.checkpoint_every": "it does not affect the result",
}
GROUPS = ("model", "train.optimizer", "train.schedule")
"""The keys whose values are options, each with keys of its own."""
_INTERVAL_KEYS = {"type", "low", "high", "step", "log"}
_STEP_TOLERANCE = 1e-8
_NUM_DIGITS = 12  # behind the point, of a value of an interval with steps


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
        return [int(value) for value in values] if self.is_integer else [round(value, _NUM_DIGITS) for value in values]

    def contains(self, value: Any) -> bool:
        """Return whether `value` is one of the values."""
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return bool(self.low <= value <= self.high) and abs(steps - round(steps)) < _STEP_TOLERANCE


@dataclass(frozen=True)
class Choice:
    """Unordered values."""

    choices: tuple[Value, ...]
    """A list among them is written as text, as `write` does: Optuna knows no lists."""

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


@dataclass(frozen=True)
class Option:
    """One of the options that a sweep chooses from, such as a model.

    Attributes:
        component: With the values of its file.
        space: What its file proposes to sweep.
    """

    component: Component
    space: Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """The swept keys.

    Attributes:
        dimensions: By dotted key: first the groups whose options are swept, then the others in alphabetical order.
        options: Of those groups, by group and name.
    """

    dimensions: Mapping[str, Dimension]
    options: Mapping[str, Mapping[str, Component]] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def __getitem__(self, key: str) -> Dimension:
        return self.dimensions[key]

    def items(self) -> typing.ItemsView[str, Dimension]:
        """Return the keys and their dimensions."""
        return self.dimensions.items()

    def condition(self, key: str) -> tuple[str, str] | None:
        """Return the group and the option without which `key` has no meaning; None if it always has one."""
        for group in self.options:
            if key.startswith(f"{group}."):
                return group, key.removeprefix(f"{group}.").partition(".")[0]
        return None

    def is_active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Return whether `key` has a meaning beside the values that are already chosen."""
        condition = self.condition(key)
        return condition is None or params.get(condition[0]) == condition[1]

    def config_key(self, key: str) -> str:
        """Return the key of the configuration that a swept key sets."""
        condition = self.condition(key)
        return key if condition is None else key.replace(f"{condition[0]}.{condition[1]}.", f"{condition[0]}.", 1)

    def clean(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a trial as people write them: Optuna proposes 0.15000000000000002 for three steps."""
        steps = {key for key, dimension in self.items() if isinstance(dimension, Interval) and dimension.step}
        return {
            key: round(value, _NUM_DIGITS) if key in steps and isinstance(value, float) else value
            for key, value in params.items()
        }

    def apply(self, base: Config, params: Mapping[str, Any]) -> Config:
        """Return `base` with the values of a trial.

        Raises:
            ConfigError: A value is not allowed for its key.
        """
        params = self.clean(params)
        chosen = {key: self.options[key][value] for key, value in params.items() if key in self.options}
        rest = {self.config_key(key): value for key, value in params.items() if key not in chosen}
        config = with_values(base, chosen)
        return with_values(config, {key: _read_list(config, key, value) for key, value in rest.items()})

    def resolve(self, base: Config, params: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        """Return what makes a configuration that of a trial.

        Returns:
            The options of the groups that are swept, or whose keys are; and the values of the keys.
        """
        config = self.apply(base, params)
        flat = config.flat()
        keys = [self.config_key(key) for key in params if key not in self.options]
        options = {
            group: component.name
            for group, component in config.components().items()
            if group in self.options or any(key.startswith(f"{group}.") for key in keys)
        }
        return options, {key: flat.get(key) for key in keys}

    def read(self, config: Config) -> dict[str, Any]:
        """Return the values that `config` has for the swept keys which have a meaning in it."""
        flat = config.flat()
        params: dict[str, Any] = {}
        for key in self.dimensions:
            if self.is_active(key, params):
                params[key] = config.model.name if key == "model" else write(flat.get(self.config_key(key)))
        return params

    def points(self) -> list[dict[str, Any]]:
        """Return every point of a space whose dimensions all have finitely many values."""
        points: list[dict[str, Any]] = [{}]
        for key, dimension in self.dimensions.items():
            points = [
                grown
                for point in points
                for grown in (
                    [{**point, key: value} for value in dimension.values() or ()]
                    if self.is_active(key, point)
                    else [point]
                )
            ]
        return points


def write(value: Any) -> Value:
    """Return a value as Optuna can keep it: a list becomes text."""
    if isinstance(value, enum.Enum):
        return typing.cast(Value, value.value)
    return json.dumps(list(value)) if isinstance(value, list | tuple) else typing.cast(Value, value)


def _read_list(config: Config, key: str, value: Any) -> Any:
    is_list = isinstance(value, str) and value.startswith("[") and not isinstance(find_hint(config, key), type)
    return json.loads(value) if is_list else value


def parse_space(nested: Mapping[str, Any], base: Config, find_option: Callable[[str, str], Option]) -> Space:
    """Return the checked space of `sweep.space`, whose keys are sections and then their keys.

    Args:
        nested: The space as it was composed.
        base: The baseline, with everything that holds for every trial.
        find_option: Returns an option of one of `GROUPS` by its name.

    Raises:
        ConfigError: A key cannot be swept, a range is empty, or a value is not allowed for its key.
    """
    parser = _Parser(base, find_option)
    for section in nested:
        if section not in SECTIONS:
            raise ConfigError(f"sweep.space.{section}: expected keys of {' or '.join(SECTIONS)}")
    for section in SECTIONS:
        parser.parse(section, nested.get(section, {}))
    dimensions = sorted(parser.dimensions.items(), key=lambda item: (item[0] not in parser.options, item[0]))
    return Space(dict(dimensions), parser.options)


class _Parser:
    def __init__(self, base: Config, find_option: Callable[[str, str], Option]) -> None:
        self.dimensions: dict[str, Dimension] = {}
        self.options: dict[str, dict[str, Component]] = {}
        self._base = base
        self._find_option = find_option

    def parse(self, dotted: str, described: Any) -> None:
        """Add what is swept of a section, a group or a key."""
        if described is None:
            return  # taken out of the space
        if dotted in UNSWEPT:
            raise ConfigError(f"sweep.space.{dotted}: cannot be swept ({UNSWEPT[dotted]})")
        if dotted in GROUPS and isinstance(described, Mapping):
            if "type" in described:
                self._parse_options(dotted, described)
            else:
                proposed = self._find_option(dotted, _name(self._base, dotted)).space
                self._parse_keys(dotted, self._base, _merge(proposed, described))
        elif dotted in SECTIONS or dataclasses.is_dataclass(find_hint(self._base, dotted)):
            if not isinstance(described, Mapping):
                raise ConfigError(f"sweep.space.{dotted}={described}: expected its keys")
            for key, value in described.items():
                self.parse(f"{dotted}.{key}", value)
        else:
            self._add(dotted, dotted, described, self._base)

    def _parse_options(self, group: str, described: Mapping[str, Any]) -> None:
        choices = described.get("choices")
        if described["type"] != "categorical" or not isinstance(choices, list) or not choices:
            raise ConfigError(f"sweep.space.{group}: expected type: categorical, and choices, a list of options")
        found = {str(name): self._find_option(group, str(name)) for name in choices}
        if len(found) < len(choices):
            raise ConfigError(f"sweep.space.{group}.choices={choices}: expected each option once")
        unknown = sorted(described.keys() - {"type", "choices", *found})
        if unknown:
            raise ConfigError(f"sweep.space.{group}.{unknown[0]}: expected type, choices, or the keys of an option")
        self.dimensions[group] = Choice(tuple(found))
        self.options[group] = {name: option.component for name, option in found.items()}
        for name, option in found.items():
            config = with_values(self._base, {group: option.component})
            self._parse_keys(group, config, _merge(option.space, described.get(name) or {}), under=f"{group}.{name}")

    def _parse_keys(self, group: str, config: Config, keys: Mapping[str, Any], *, under: str | None = None) -> None:
        for key, described in keys.items():
            if described is not None:
                self._add(f"{under or group}.{key}", f"{group}.{key}", described, config)

    def _add(self, dotted: str, key: str, described: Any, config: Config) -> None:
        if key in UNSWEPT:
            raise ConfigError(f"sweep.space.{key}: cannot be swept ({UNSWEPT[key]})")
        kind = find_hint(config, key)
        if kind is None:
            raise ConfigError(f"sweep.space.{dotted}: unknown key; {command('train', '--cfg', 'job')} shows every key")
        self.dimensions[dotted] = _parse_dimension(dotted, described, kind=kind)
        for value in _extremes(self.dimensions[dotted]):
            with_values(config, {key: _read_list(config, key, value)})


def _name(base: Config, group: str) -> str:
    return base.components()[group].name


def _merge(proposed: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is proposed, with the changes that are described: whole dimensions, or single ends of them."""
    merged = dict(proposed)
    for key, value in described.items():
        known = merged.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping) and "type" not in value:
            value = {**known, **value}
        merged[key] = value
    return merged


def _parse_dimension(dotted: str, described: Any, *, kind: Any) -> Dimension:
    name = f"sweep.space.{dotted}"
    if isinstance(described, Mapping):
        described = {key: value for key, value in described.items() if value is not None}  # null: not given
    if not isinstance(described, Mapping) or described.get("type") not in ("int", "float", "categorical"):
        raise ConfigError(f"{name}: expected type: int, float or categorical, with low and high or with choices")
    if described["type"] == "categorical":
        choices = described.get("choices")
        if set(described) != {"type", "choices"} or not isinstance(choices, list) or not choices:
            raise ConfigError(f"{name}: expected choices, a list of one or more values, and nothing else")
        if len({str(choice) for choice in choices}) < len(choices):
            raise ConfigError(f"{name}.choices={choices}: expected each value once")
        return Choice(tuple(write(coerce(choice, kind, key=f"{name}.choices")) for choice in choices))
    unknown = set(described) - _INTERVAL_KEYS
    if unknown:
        raise ConfigError(f"{name}.{min(unknown)}: unknown key; expected low, high, step or log")
    if described["type"] == "float" and int in (kind, *typing.get_args(kind)):
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
