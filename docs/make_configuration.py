"""Writes the tables of docs/configuration.md from the dataclasses, the functions and the files in conf/: `make docs`.

`tests/test_docs.py` fails where they are not what this program would write.
"""

import ast
import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_pipeline.config import compose, functions
from mnist_pipeline.config.coerce import describe
from mnist_pipeline.config.sections import (
    AugmentConfig,
    Component,
    Config,
    DataConfig,
    EarlyStoppingConfig,
    EvaluateConfig,
    ExecutorConfig,
    TrackingConfig,
    TrainConfig,
)
from mnist_pipeline.registry.settings import PromoteConfig
from mnist_pipeline.sweep.settings import ConfirmConfig, SweepConfig

PAGE = Path(__file__).parent / "configuration.md"
Row = tuple[str, str, str, str]
"""Key, default, allowed values, meaning."""

CONF = Path(__file__).parents[1] / "conf"
MARKS = ("<!-- keys -->\n", "<!-- /keys -->")
_NOT_KEYS = ("option", "target", "arguments", "supplied")


def renew(page: str) -> str:
    """Return the page with its tables as the source has them now."""
    before, rest = page.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}" + "\n".join(_describe_sections()) + f"{MARKS[1]}{after}"


def _describe_sections() -> Iterator[str]:
    switches = dict.fromkeys(("force", "wait"), False)
    yield _section("force, wait", "What to do about other runs.", _rows(Config, "", switches, only=tuple(switches)))
    yield _section("data", _about(DataConfig), _rows(DataConfig, "data", _defaults("data", "mnist")))
    yield from _describe_options("data")
    yield _section("model", "The network. What a sweep tries of it stands in its file, as `_space_`.", ())
    yield from _describe_options("model")
    train = _defaults("train", "default")
    yield _section("train", _about(TrainConfig), _rows(TrainConfig, "train", train))
    for name, schema in (("early_stopping", EarlyStoppingConfig), ("augment", AugmentConfig)):
        nested = {f"train.{name}.{key}": value for key, value in train[f"train.{name}"].items()}
        yield _section(f"train.{name}", _about(schema), _rows(schema, f"train.{name}", nested))
    yield _section("train.optimizer", "The optimiser, with keys of its own.", ())
    yield from _describe_options("train/optimizer")
    yield _section("train.schedule", "How the learning rate changes from step to step.", ())
    yield from _describe_options("train/schedule")
    yield _section(
        "evaluate", _about(EvaluateConfig), _rows(EvaluateConfig, "evaluate", _defaults("evaluate", "default"))
    )
    tracking = _defaults("tracking", "local")
    yield _section(
        "tracking", f"{_about(TrackingConfig)} Options: `local`, `server`.", _rows(TrackingConfig, "tracking", tracking)
    )
    executor = _defaults("executor", "ray")
    text = f"{_about(ExecutorConfig)} Options: {_names('executor')}; the defaults are those of `ray`."
    yield _section("executor", text, _rows(ExecutorConfig, "executor", executor))
    sweep = _defaults("sweep", "default")
    text = f"{_about(SweepConfig)} Options: {_names('sweep')}. The space is described in [sweeping](sweeping.md)."
    yield _section("sweep", text, _rows(SweepConfig, "sweep", sweep))
    nested = {f"sweep.confirm.{key}": value for key, value in sweep["sweep.confirm"].items()}
    yield _section("sweep.confirm", _about(ConfirmConfig), _rows(ConfirmConfig, "sweep.confirm", nested))
    yield _section("promote", _about(PromoteConfig), _rows(PromoteConfig, "promote", _defaults("promote", "default")))


def _section(title: str, text: str, rows: typing.Iterable[Row]) -> str:
    return f"## {title}\n\n{text}\n\n{_table(rows)}".rstrip() + "\n"


def _table(rows: typing.Iterable[Row]) -> str:
    lines = [f"| `{key}` | {' | '.join(cells)} |" for key, *cells in rows]
    return "\n".join(["| key | default | values | meaning |", "| --- | --- | --- | --- |", *lines]) if lines else ""


def _rows(schema: type, prefix: str, defaults: Mapping[str, Any], *, only: tuple[str, ...] = ()) -> Iterator[Row]:
    documented = _field_docs(schema)
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        is_nested = any(
            isinstance(one, type) and dataclasses.is_dataclass(one) for one in (hint, *typing.get_args(hint))
        )
        if field.name in _NOT_KEYS or (only and field.name not in only) or (is_nested and field.name != "confirm"):
            continue
        key = f"{prefix}.{field.name}" if prefix else field.name
        value = defaults.get(key, None if field.default is dataclasses.MISSING else field.default)
        if field.name in ("space", "confirm"):
            shown, allowed = "", ""
        else:
            shown, allowed = _show(value), _allowed(hint)
        yield key, shown, allowed, documented.get(field.name) or _enum_doc(hint)


def _describe_options(group: str) -> Iterator[str]:
    prefix = group.replace("/", ".")
    for option in compose.list_options(group):
        defaults = _defaults(group, option)
        target = str(defaults[f"{prefix}.{functions.TARGET}"])
        supplied = compose.COMPONENTS.get(group, ())
        function = functions.read(target, key=prefix, supplied=supplied)
        module, _, name = target.rpartition(".")
        text = _read_docstring(module, name)
        arguments = _argument_docs(text)
        rows = [
            (
                f"{prefix}.{key}",
                _show(defaults.get(f"{prefix}.{key}", function.defaults.get(key, "???"))),
                _allowed(hint),
                arguments.get(key, ""),
            )
            for key, hint in function.hints.items()
        ]
        yield (
            f"### `{group}={option}`\n\n{_header(group, option) or text.splitlines()[0]}\n\n{_table(rows)}".rstrip()
            + "\n"
        )


def _read_docstring(module: str, name: str) -> str:
    """Return the docstring of a function without importing its module, which may take seconds."""
    file = functions.find_file(module)
    assert file is not None
    defined = [node for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.FunctionDef)]
    return next(ast.get_docstring(node) or "" for node in defined if node.name == name)


def _header(group: str, option: str) -> str:
    """Return what the comment at the head of an option's file says."""
    lines = []
    for line in (CONF / group / f"{option}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(line for line in lines if line and not line.startswith(("mnist-pipeline", "@package")))


def _defaults(group: str, option: str) -> Mapping[str, Any]:
    return compose.read_defaults(group, option)


def _names(group: str) -> str:
    return ", ".join(f"`{option}`" for option in compose.list_options(group))


def _about(schema: type) -> str:
    text = " ".join((inspect.getdoc(schema) or "").split("\n\n")[0].split())
    text = re.sub(r"^`[\w.]+`: ", "", text)
    return text[0].upper() + text[1:]


def _field_docs(schema: type) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(schema)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _enum_doc(hint: Any) -> str:
    kinds = [one for one in (hint, *typing.get_args(hint)) if isinstance(one, type) and issubclass(one, enum.Enum)]
    return inspect.getdoc(kinds[0]) or "" if kinds else ""


def _argument_docs(text: str) -> dict[str, str]:
    block = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    if block is None:
        return {}
    found = re.findall(r"^    (\w+): ((?:.|\n        )+)", block[1], re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def _allowed(hint: Any) -> str:
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    if Component in options:
        return ""
    return " or ".join(dict.fromkeys("null" if one is type(None) else describe(one) for one in options))


def _show(value: Any) -> str:
    if value == "???":
        return "(required)"
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, tuple):
        value = list(value)
    text = (
        OmegaConf.to_yaml(OmegaConf.create({"x": value})).strip().removeprefix("x: ")
        if not isinstance(value, list)
        else str(value)
    )
    return f"`{text.strip()}`"


def main() -> None:
    """Write the page."""
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written {PAGE}")


if __name__ == "__main__":
    main()
