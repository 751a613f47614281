"""The modules that decide a result: the stage rooms, and the modules of ours and the user's own that they import.

Modules are found as Python finds them, relative imports and packages included, but none of them is executed. Installed
distributions are left out: their versions stand for them.
"""

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from mnist_pipeline.config import functions
from mnist_pipeline.system.errors import ConfigError

PACKAGE = "mnist_pipeline"
STAGE_ROOMS = ("data", "model", "train", "evaluate")
FIGURES = "figures"
"""The module of a stage room that only draws, and does not affect the result."""

_INSTALLED = ("site-packages", "dist-packages")


def find_deciding_modules(modules: Sequence[str] = (), search_path: Sequence[str] | None = None) -> dict[str, Path]:
    """Return the files of all modules that decide a result, by the modules' full names.

    Args:
        modules: Further ones, which the configuration names.
        search_path: Folders to search for modules; None: where this process imports them from.
    """
    finder = _Finder(search_path)
    package = finder.find(PACKAGE)
    assert package is not None
    assert package.submodule_search_locations is not None
    found: dict[str, Path] = {}
    pending = [*_list_stage_modules(Path(package.submodule_search_locations[0])), *modules]
    while pending:
        name = pending.pop()
        spec = None if name in found else finder.find(name)
        file = None if spec is None else _own_file(name, spec)
        if spec is None or file is None:
            continue
        found[name] = file
        pending += [name.rpartition(".")[0]] if "." in name else []  # Python runs the packages around a module first
        if file.suffix == ".py":
            pending += _imports(parse(file), package=name if spec.submodule_search_locations else spec.parent or "")
    return found


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a Python file without docstrings, so that none of them decides anything.

    Raises:
        ConfigError: A module of the user's cannot be read.
    """
    try:
        tree = functions.parse(file)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for node in ast.walk(tree):
        body: list[ast.stmt] | None = getattr(node, "body", None)
        if isinstance(body, list):
            # Every bare string, not only the first: those below a field document it.
            node.body = [statement for statement in body if not _is_string(statement)]  # type: ignore[attr-defined]
    return tree


def _list_stage_modules(package: Path) -> Iterator[str]:
    for room in STAGE_ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            parts = file.relative_to(package).with_suffix("").parts
            if parts[-1] != FIGURES:
                yield ".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])


class _Finder:
    def __init__(self, search_path: Sequence[str] | None) -> None:
        self._search_path = search_path
        self._found: dict[str, ModuleSpec | None] = {}

    def find(self, name: str) -> ModuleSpec | None:
        """Return where Python would load the module from; None if there is no such module."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        if parent:
            found = self.find(parent)
            places = None if found is None or not _is_own(parent, found) else found.submodule_search_locations
            return None if places is None else PathFinder.find_spec(name, places)
        if self._search_path is not None:
            return PathFinder.find_spec(name, self._search_path)
        try:
            return importlib.util.find_spec(name)
        except ValueError:  # a module that was made by hand, without a file
            return None


def _own_file(name: str, spec: ModuleSpec) -> Path | None:
    if not spec.has_location or spec.origin is None or not _is_own(name, spec):
        return None
    return Path(spec.origin)


def _is_own(name: str, spec: ModuleSpec) -> bool:
    """Return whether a module is of this package or the user's own, and not of an installed distribution or Python."""
    if name.partition(".")[0] == PACKAGE:
        return True
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    for place in map(Path, places):
        if any(part in _INSTALLED for part in place.parts) or place.resolve().is_relative_to(standard):
            return False
    return bool(places)


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.Module, *, package: str) -> list[str]:
    """Return the full names of everything that `tree`, a module of `package`, may import as a module."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    return [name for name in found if name]
