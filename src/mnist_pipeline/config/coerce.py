"""One set of rules by which composed values become the fields of dataclasses.

Numbers may be quoted, as `${oc.env:NAME}` gives them; nothing else is converted. Errors are one line.
"""

import contextlib
import dataclasses
import enum
import math
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import annotated_types

from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.nearest import nearest
from mnist_pipeline.system.secrets import Address

_EXPECTED = {bool: "true or false", int: "an integer", float: "a finite number", str: "text", Address: "an address"}


def fill(schema: type, values: Any, *, prefix: str, **parsed: Any) -> Any:
    """Return the dataclass `schema` with `values`, each as the type that its field declares.

    Args:
        schema: Its fields are the keys. A field may be a dataclass itself, which `values` then nest.
        values: The keys and values of a section.
        prefix: The section's dotted name, for messages.
        parsed: Values of fields that are already in their final form.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix}={_show(values)}: expected a section of keys")
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(schema) if field.name not in parsed}
    refuse_unknown(values, known=[*fields, *parsed], prefix=f"{prefix}.")
    optional = {field.name for field in dataclasses.fields(schema) if field.default is not dataclasses.MISSING}
    for key in fields:
        if values.get(key, "???") == "???" and not (key in optional and key not in values):
            raise ConfigError(f"{prefix}.{key} is missing: give it a value, e.g. in conf/{prefix}/")
    coerced = {key: coerce(values[key], hint, key=f"{prefix}.{key}") for key, hint in fields.items() if key in values}
    return schema(**coerced, **parsed)


def coerce(value: Any, hint: Any, *, key: str) -> Any:
    """Return `value` as the type `hint`.

    Args:
        value: As composed.
        hint: A dataclass, an enum, bool, int, float, str, `Address`, a list, tuple or Literal, any of them Annotated
            with bounds of `annotated_types`, or a union of these.
        key: Dotted, for messages.

    Raises:
        ConfigError: It is not of that type.
    """
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    hints = [option for option in options if option is not type(None)]
    if value is None and len(hints) < len(options):
        return None
    if dataclasses.is_dataclass(hints[0]):
        return fill(typing.cast(type, hints[0]), value, prefix=key)
    for one in hints:
        with contextlib.suppress(ValueError):
            return _convert(value, one)
    expected = [*map(describe, hints), *(["null"] if len(hints) < len(options) else [])]
    raise ConfigError(f"{key}={_show(value)}: expected {' or '.join(dict.fromkeys(expected))}")


def describe(hint: Any) -> str:
    """Return in words which values a type hint allows."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, parts))
    if origin is typing.Annotated:
        return _describe_bounds("an integer" if parts[0] is int else "a finite number", parts[1:])
    if origin is dict:
        return f"a mapping, each value {describe(parts[1])}"
    if origin is list or (origin is tuple and parts[-1] is ...):
        return f"a list, each {describe(parts[0])}"
    if origin is tuple:
        return f"a list of {len(parts)}, each {describe(parts[0])}"
    return _EXPECTED.get(hint) or " or ".join(option.value for option in hint)


def _describe_bounds(what: str, bounds: Sequence[Any]) -> str:
    """Return the description of the numbers between bounds."""
    limits = {
        kind: getattr(bound, kind) for bound in bounds for kind in ("ge", "gt", "le", "lt") if hasattr(bound, kind)
    }
    words = {"ge": "from {:,}", "gt": "above {:,}", "le": "to {:,}", "lt": "and below {:,}"}
    if not {"ge", "gt"} & set(limits):
        words |= {"le": "up to {:,}", "lt": "below {:,}"}
    return " ".join([what, *(text.format(limits[kind]) for kind, text in words.items() if kind in limits)])


def _is_within(value: Any, bound: Any) -> bool:
    match bound:
        case annotated_types.Ge(limit):
            return bool(value >= limit)
        case annotated_types.Gt(limit):
            return bool(value > limit)
        case annotated_types.Le(limit):
            return bool(value <= limit)
        case annotated_types.Lt(limit):
            return bool(value < limit)
    raise AssertionError(bound)


def _convert(value: Any, hint: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        converted = _convert(value, parts[0])
        if not all(_is_within(converted, bound) for bound in parts[1:]):
            raise ValueError
        return converted
    if origin is typing.Literal:
        if value in parts:
            return value
        raise ValueError
    if origin in (list, tuple):
        is_open = origin is list or parts[-1] is ...
        if not isinstance(value, list | tuple) or (not is_open and len(value) != len(parts)):
            raise ValueError
        kinds = parts[:1] * len(value) if is_open else parts
        return origin(_convert(one, kind) for one, kind in zip(value, kinds, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError
        return {str(key): _convert(one, parts[1]) for key, one in value.items()}
    if issubclass(hint, enum.Enum):
        return hint(value)
    if hint is bool and isinstance(value, bool):
        return value
    if isinstance(value, bool):
        raise ValueError
    if hint is int and isinstance(value, int | str):
        return int(value)
    if hint is float and isinstance(value, int | float | str) and math.isfinite(float(value)):
        return float(value)
    if hint in (str, Address) and isinstance(value, str | int | float):
        return value if isinstance(value, hint) else hint(value)
    raise ValueError


def _show(value: Any) -> str:
    return "null" if value is None else str(value)


def refuse_unknown(keys: Iterable[object], *, known: Collection[str], prefix: str = "") -> None:
    """Refuse a key that is not in `known`.

    Raises:
        ConfigError: One of `keys` is not; the message suggests the nearest.
    """
    for key in keys:
        if key not in known:
            raise unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in known])


def unknown_key(key: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a dotted key that is not among the known ones."""
    section, _, name = key.rpartition(".")
    beside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == section}
    # Among keys of the same section only the last part can be a slip.
    near = nearest(name, beside) if beside else nearest(key, known)
    meant = beside.get(near, near) if near else None
    if not section:
        lasts = {one.rpartition(".")[2]: one for one in reversed(known)}
        meant = meant or lasts.get(nearest(name, lasts) or "")
    if meant:
        return ConfigError(f"unknown key {key}: did you mean {meant}?")
    sections = sorted({name.split(".")[0] for name in known})
    expected = ", ".join(beside.values()) or f"a key of {', '.join(sections)}" if known else "none"
    return ConfigError(f"unknown key {key}: expected {expected}")


def list_keys(schema: type, *, prefix: str) -> list[str]:
    """Return the dotted keys of a dataclass and of the dataclasses nested in it."""
    hints = typing.get_type_hints(schema, include_extras=True)
    keys: list[str] = []
    for field in dataclasses.fields(schema):
        key = f"{prefix}.{field.name}"
        keys.append(key)
        for hint in (hints[field.name], *typing.get_args(hints[field.name])):
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):  # not a bound, which is one too
                keys += list_keys(hint, prefix=key)
    return keys
