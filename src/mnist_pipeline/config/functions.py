"""The functions that a configuration names with Hydra's `_target_`: their parameters are its keys.

They are read from the source, so that a wrong key or value is reported without importing anything.
"""

import ast
import enum
import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import EllipsisType
from typing import Annotated, Any, Literal

import annotated_types

from mnist_pipeline.config.coerce import coerce, refuse_unknown
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address

TARGET = "_target_"
"""Hydra's key for the dotted name of a function."""

MODEL_SUPPLIED = ("image_shape", "num_classes", "seed")
"""The parameters of a model's function that the pipeline supplies."""

_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "Address": Address, "None": None}
_BOUNDS = {name: getattr(annotated_types, name) for name in ("Ge", "Gt", "Le", "Lt")}
_EXPECTED = (
    "bool, int, float, str, list[...] or tuple[...] of these, Literal[...], Annotated[...] with a bound of "
    "annotated_types, or one of them or None"
)
_MISSING = enum.Enum("_MISSING", "value").value


@dataclass(frozen=True)
class Function:
    """A function, as its source declares it.

    Attributes:
        target: Its dotted name.
        hints: The type of each parameter that the configuration may set.
        defaults: The values of those that have one.
        supplied: The parameters that the pipeline supplies itself.
    """

    target: str
    hints: Mapping[str, Any]
    defaults: Mapping[str, Any]
    supplied: tuple[str, ...] = ()

    def read_arguments(self, values: Mapping[str, Any], *, prefix: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
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


def is_ours(target: str) -> bool:
    """Return whether a function is one of this package."""
    return target.startswith("mnist_pipeline.")


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
        supplied: Parameters that the pipeline supplies itself where the function has them.

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
    except ValueError as error:
        raise ConfigError(f"{key}={target}: {error}") from error


def load(target: str, *, key: str) -> Callable[..., Any]:
    """Import the function that `target` names.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, name = target.rpartition(".")
    allow_current_folder()
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{key}={target}: it cannot be imported ({error})") from error
    except SyntaxError as error:
        raise ConfigError(f"{key}={target}: {_describe(error)}") from error
    return function


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a Python file.

    Raises:
        ValueError: It cannot be read; the message shows the line.
    """
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        raise ValueError(_describe(error)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error})") from error


def _describe(error: SyntaxError) -> str:
    shown = f": {error.text.strip()}" if error.text else ""
    return f"{error.filename}, line {error.lineno}: {error.msg}{shown}"


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
    tree = parse(file)
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
        hints[parameter.arg] = _read_hint(parameter, value, constants)
        if value is not _MISSING:
            defaults[parameter.arg] = value
    named = {parameter.arg for parameter in (*arguments.args, *arguments.kwonlyargs)}
    return Function(target, hints, defaults, supplied=tuple(name for name in supplied if name in named))


def _evaluate(node: ast.expr, constants: Mapping[str, ast.expr], parameter: str) -> Any:
    try:
        return ast.literal_eval(constants.get(node.id, node) if isinstance(node, ast.Name) else node)
    except ValueError as error:
        raise ValueError(f"the default of {parameter} is not a plain number, text or list") from error


def _read_hint(parameter: ast.arg, default: Any, constants: Mapping[str, ast.expr]) -> Any:
    if parameter.annotation is None:
        if type(default) in (bool, int, float, str):
            return type(default)
        raise ValueError(f"the parameter {parameter.arg} has no type: give it one, {_EXPECTED}")
    try:
        return _to_type(parameter.annotation, constants)
    except (KeyError, ValueError, TypeError, SyntaxError, RecursionError) as error:
        written = ast.unparse(parameter.annotation)
        raise ValueError(f"the parameter {parameter.arg} has the type {written}: expected {_EXPECTED}") from error


def _to_type(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    """Return the type that an annotation means; anything but the few types of YAML is an error."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as text):
            return _to_type(ast.parse(text, mode="eval").body, constants)
        case ast.Name(id=name) if name in constants:  # an alias
            return _to_type(constants[name], {key: value for key, value in constants.items() if key != name})
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _to_type(left, constants) | _to_type(right, constants)
        case ast.Subscript(value=ast.Name(id=generic) | ast.Attribute(attr=generic), slice=inner):
            return _to_generic(generic, inner, constants)
    raise KeyError(ast.dump(node))


def _to_generic(generic: str, inner: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    match generic, inner:
        case "Literal", _:
            return Literal[ast.literal_eval(inner)]
        case "Optional", _:
            return _to_type(inner, constants) | None
        case "Annotated", ast.Tuple(elts=[base, *bounds]):
            return Annotated[_to_type(base, constants), *map(_to_bound, bounds)]
        case (("list" | "Sequence"), _):
            return list[_to_type(inner, constants)]  # type: ignore[misc]
        case "tuple", ast.Tuple(elts=[element, ast.Constant(value=EllipsisType())]):
            return tuple[_to_type(element, constants), ...]  # type: ignore[misc]
        case "tuple", ast.Tuple(elts=elements):
            return tuple[tuple(_to_type(element, constants) for element in elements)]  # type: ignore[misc]
    raise KeyError(generic)


def _to_bound(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[limit], keywords=[]):
            return _BOUNDS[name](ast.literal_eval(limit))
    raise KeyError(ast.dump(node))
