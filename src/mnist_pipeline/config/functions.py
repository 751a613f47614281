"""The functions that a configuration names with Hydra's `_target_`: their parameters are its keys.

They are read from the source, so that a wrong key is reported without importing anything.
"""

import ast
import enum
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from mnist_pipeline.config.coerce import coerce, refuse_unknown
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address

TARGET = "_target_"
"""Hydra's key for the dotted name of a function."""

_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "Address": Address, "None": None}
_EXPECTED = "bool, int, float, str, list[...] or tuple[...] of these, Literal[...], or one of them or None"
_MISSING = enum.Enum("_MISSING", "value").value


@dataclass(frozen=True)
class Function:
    """A function, as its source declares it.

    Attributes:
        target: Its dotted name.
        hints: The type of each parameter that the configuration may set.
        defaults: The values of those that have one.
    """

    target: str
    hints: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def read_arguments(self, values: Mapping[str, Any], *, prefix: str, others: tuple[str, ...]) -> dict[str, Any]:
        """Return the arguments that `values` give, each of its parameter's type, with the defaults of the others.

        Args:
            values: The keys and values of a section.
            prefix: The section's name, for messages.
            others: Keys of the section that are not parameters.

        Raises:
            ConfigError: A key is unknown or missing, or a value has the wrong type.
        """
        refuse_unknown(values, known=[*others, *self.hints], prefix=f"{prefix}.")
        given = {**self.defaults, **{key: value for key, value in values.items() if key in self.hints}}
        for key in self.hints:
            if given.get(key, "???") == "???":
                raise ConfigError(f"{prefix}.{key} is missing: give {prefix}.{key}=VALUE")
        return {key: coerce(given[key], hint, key=f"{prefix}.{key}") for key, hint in self.hints.items()}


def allow_current_folder() -> None:
    """Let modules be imported from the current folder, after all other places."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def read(target: Any, *, key: str, supplied: tuple[str, ...] = ()) -> Function:
    """Return the function that `target` names, without importing its module.

    Args:
        target: Dotted: the module, then the function.
        key: The key that gives it, for messages.
        supplied: Parameters that the pipeline supplies itself.

    Raises:
        ConfigError: There is no such function, or a parameter has no type that YAML can express.
    """
    module, _, name = str(target).rpartition(".")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ConfigError(f"{key}={target}: expected the dotted name of a function, e.g. my_package.my_data.load")
    allow_current_folder()
    file = find_file(module)
    if file is None:
        raise ConfigError(
            f"{key}={target}: there is no module {module} in the current folder or installed: give another name, or "
            "call the command from the folder that holds it"
        )
    try:
        return _read(target, name, file, os.stat(file).st_mtime_ns, supplied)  # noqa: PTH116
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{key}={target}: {file} cannot be read ({error}): fix it") from error
    except ValueError as error:
        raise ConfigError(f"{key}={target}: {error}") from error


def find_file(module: str) -> Path | None:
    """Return the source file of a module, found as Python finds it; None if there is none."""
    places: list[str] | None = None
    spec = None
    parts = module.split(".")
    for number in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


@functools.cache
def _read(target: str, name: str, file: Path, modified_ns: int, supplied: tuple[str, ...]) -> Function:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        raise ValueError(f"{file} defines no function {name}: name the module that defines it")
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    arguments = found[-1].args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise ValueError(f"{name} takes *args, **kwargs or positional-only parameters: give each key a parameter")
    hints: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    unset = [None] * (len(arguments.args) - len(arguments.defaults))
    for parameter, default in [
        *zip(arguments.args, [*unset, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        if parameter.arg in supplied:
            continue
        value = _MISSING if default is None else _evaluate(default, constants, parameter.arg)
        hints[parameter.arg] = _read_hint(parameter, value)
        if value is not _MISSING:
            defaults[parameter.arg] = value
    return Function(target, hints, defaults)


def _evaluate(node: ast.expr, constants: Mapping[str, ast.expr], parameter: str) -> Any:
    try:
        return ast.literal_eval(constants.get(node.id, node) if isinstance(node, ast.Name) else node)
    except ValueError as error:
        raise ValueError(f"the default of {parameter} is not a plain number, text or list") from error


def _read_hint(parameter: ast.arg, default: Any) -> Any:
    if parameter.annotation is None:
        if type(default) in (bool, int, float, str):
            return type(default)
        raise ValueError(f"the parameter {parameter.arg} has no type: give it one, {_EXPECTED}")
    try:
        return _to_type(parameter.annotation)
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        written = ast.unparse(parameter.annotation)
        raise ValueError(f"the parameter {parameter.arg} has the type {written}: expected {_EXPECTED}") from error


def _to_type(node: ast.expr) -> Any:
    """Return the type that an annotation means; anything but the few types of YAML is an error."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as text):
            return _to_type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return _TYPES[name]
        case ast.Attribute(attr=name):
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _to_type(left) | _to_type(right)
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=values):
            choices = ast.literal_eval(values)
            return Literal[choices]
        case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=inner):
            return _to_type(inner) | None
        case ast.Subscript(value=ast.Name(id="list" | "Sequence"), slice=inner):
            return list[_to_type(inner)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=elements)):
            return tuple[tuple(_to_type(element) for element in elements if not _is_ellipsis(element))]  # type: ignore[misc]
    raise KeyError(ast.dump(node))


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis
