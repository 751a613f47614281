"""Changes of single values of a checked configuration, under their dotted keys."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from mnist_pipeline.config import functions
from mnist_pipeline.config.coerce import coerce, unknown_key
from mnist_pipeline.config.sections import Component, Config


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return `config` with other values under dotted keys. A group, such as `model`, takes a `Component`.

    Raises:
        ConfigError: A key is unknown, or a value is not allowed for its key.
    """
    for dotted, value in values.items():
        config = _set(config, dotted.split("."), value, dotted=dotted)
    return config


def find_hint(config: Config, dotted: str) -> Any:
    """Return the type of the value under a dotted key; None if there is no such key."""
    section: Any = config
    hint: Any = None
    for name in dotted.split("."):
        hints = _hints(section)
        if name not in hints:
            return None
        hint = hints[name]
        section = section.arguments.get(name) if isinstance(section, Component) else getattr(section, name)
    return hint


def _set(section: Any, path: list[str], value: Any, *, dotted: str) -> Any:
    name, *rest = path
    hints = _hints(section)
    if name not in hints:
        raise unknown_key(dotted, [f"{dotted.removesuffix('.'.join(path))}{known}" for known in hints])
    if isinstance(section, Component):
        value = coerce(value, hints[name], key=dotted)
        return dataclasses.replace(section, arguments={**section.arguments, name: value})
    if rest:
        value = _set(getattr(section, name), rest, value, dotted=dotted)
    elif not isinstance(value, Component):
        value = coerce(value, hints[name], key=dotted)
    return dataclasses.replace(section, **{name: value})


def _hints(section: Any) -> Mapping[str, Any]:
    """Return the types of a section's keys; none for a plain value."""
    if isinstance(section, Component):
        return functions.read(section.target, key=section.name, supplied=section.supplied).hints
    return typing.get_type_hints(type(section), include_extras=True) if dataclasses.is_dataclass(section) else {}
