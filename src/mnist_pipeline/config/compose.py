"""From `conf/` and the command line to checked dataclasses. Hydra composes; its DictConfig ends here.

Whatever is wrong is told in one line that names the value, what was expected and the next step.
"""

import contextlib
import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.sections import (
    SECTIONS,
    SWITCHES,
    Config,
    DigitsConfig,
    EvaluateConfig,
    MnistConfig,
    ModelConfig,
    TrackingConfig,
    TrainConfig,
)
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address, mask

CONFIG_NAME = "config"
SWEEP_CONFIG_NAME = "sweep"

_RUN_GROUPS = ("data", "model", "train", "evaluate", "tracking", "preset")
_GROUPS = {
    CONFIG_NAME: _RUN_GROUPS,
    SWEEP_CONFIG_NAME: (*_RUN_GROUPS, "sweep"),
    "registry": ("data", "tracking"),
    "promote": ("data", "tracking", "promote"),
}
"""The groups of each primary configuration."""

_SCHEMAS: dict[tuple[str, str], type] = {
    ("data", "mnist"): MnistConfig,
    ("data", "digits"): DigitsConfig,
    ("model", "dense"): ModelConfig,
    ("train", ""): TrainConfig,
    ("evaluate", ""): EvaluateConfig,
    ("tracking", ""): TrackingConfig,
}


def from_hydra(composed: DictConfig) -> Config:
    """Turn what Hydra composed into the checked dataclasses.

    Raises:
        ConfigError: A key is unknown or missing, a value has the wrong type or is out of range.
    """
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    # A preset may have a section for the sweep, which is none of a single run's business.
    _refuse_unknown(values.keys(), known=[*SECTIONS, *SWITCHES, "sweep"], prefix="")
    sections = {name: section(name, values.get(name)) for name in SECTIONS}
    return Config(**sections, **{key: typed(values.get(key, False), bool, key=key) for key in SWITCHES})


def section(name: str, values: Any) -> Any:
    """Return the dataclass of the section `name` of a run's configuration.

    Raises:
        ConfigError: A key is unknown or missing, a value has the wrong type or is out of range.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{name}={values}: expected a section of keys, e.g. {name}={_options(name)[0]}")
    schema = _SCHEMAS.get((name, "")) or _SCHEMAS.get((name, str(values.get("name"))))
    if schema is None:
        known = [option for group, option in _SCHEMAS if group == name]
        raise ConfigError(f"{name}.name={values.get('name')}: expected {' or '.join(known)}; choose with {name}=")
    return fill(schema, values, prefix=name)


def fill(schema: type, values: dict[str, Any], *, prefix: str, **parsed: Any) -> Any:
    """Return the dataclass `schema` with `values`, each as the type that its field declares.

    Args:
        schema: Its fields are the keys.
        values: The keys and values of a section.
        prefix: The section's dotted name, for messages.
        parsed: Values of fields that were read already, and are no plain types.

    Raises:
        ConfigError: A key is unknown or missing, a value has the wrong type or is out of range.
    """
    hints = typing.get_type_hints(schema)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(schema) if field.name not in parsed}
    _refuse_unknown(values.keys(), known=fields, prefix=f"{prefix}.")
    for key in fields:
        if key not in values or values[key] == "???":
            raise ConfigError(f"{prefix}.{key} is missing: give it a value, e.g. in conf/{prefix}/")
    return schema(**{key: typed(values[key], hint, key=f"{prefix}.{key}") for key, hint in fields.items()}, **parsed)


def typed(value: Any, hint: Any, *, key: str) -> Any:
    """Return `value` as the type that the field declares; a number may be written as text, as MLflow stores it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    try:
        if issubclass(hint, enum.Enum):
            return hint(value)
        if hint is bool and isinstance(value, bool):
            return value
        if hint is int and isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
        if hint in (str, Address) and isinstance(value, str | int | float) and not isinstance(value, bool):
            return value if isinstance(value, hint) else hint(value)
    except ValueError:
        pass
    names = {bool: "true or false", int: "an integer", float: "a number", str: "text", Address: "an address"}
    expected = names.get(hint) or " or ".join([*(option.value for option in hint), "null"])
    raise ConfigError(f"{key}={'null' if value is None else value}: expected {expected}")


def _refuse_unknown(keys: Iterable[object], *, known: Collection[str], prefix: str) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(_unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in known]))


def _unknown_key(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    sections = sorted({name.split(".")[0] for name in known})
    hint = f"did you mean {nearest[0]}?" if nearest else f"expected a key of {', '.join(sections)}"
    return f"unknown key {key}: {hint}"


def check(overrides: Sequence[str], *, multirun: bool = False, config_dir: str | None = None) -> list[Config]:
    """Compose and check every configuration that the overrides ask for, before Hydra starts a job.

    Args:
        overrides: The command line's overrides, in Hydra's grammar.
        multirun: Whether `KEY=A,B` stands for several runs.
        config_dir: A further folder that is searched for presets and group options.

    Returns:
        One configuration a run.

    Raises:
        ConfigError: Any of them is wrong; the message names the value and what was expected.
    """
    composed = _compose(CONFIG_NAME, overrides, multirun=multirun, config_dir=config_dir)
    return [from_hydra(one) for one in composed]


def check_sweep(overrides: Sequence[str], *, config_dir: str | None = None) -> tuple[Config, dict[str, Any], list[str]]:
    """Compose what a sweep is asked for, as `check` does for runs.

    Returns:
        The baseline, the plain values of the `sweep` section (an address is an `Address`), and the keys that the
        overrides fix.

    Raises:
        ConfigError: Any of it is wrong, but for the `sweep` section, which `sweep/space.py` checks.
    """
    (composed,) = _compose(SWEEP_CONFIG_NAME, overrides, multirun=False, config_dir=config_dir)
    values = OmegaConf.to_container(composed.sweep, resolve=True)
    if not isinstance(values, dict):
        raise ConfigError(f"sweep={values}: expected a section of keys, e.g. sweep={_options('sweep')[0]}")
    fixed = [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]
    if isinstance(values.get("storage"), str):
        values["storage"] = Address(values["storage"])
    return from_hydra(composed), {str(key): value for key, value in values.items()}, fixed


def check_values(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose a configuration that is none of a run, and return its plain values.

    Raises:
        ConfigError: Hydra refuses the overrides.
    """
    (composed,) = _compose(config_name, overrides, multirun=False, config_dir=None)
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _compose(config_name: str, overrides: Sequence[str], *, multirun: bool, config_dir: str | None) -> list[DictConfig]:
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    shown = [given.mask(override) for override in overrides]  # from here on no error quotes a secret of theirs
    with _hydra(config_dir) as added:
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            _refuse_unknown_options(parsed, config_dir)
            _refuse_names(parsed)
            runs = given.split_runs(overrides, multirun=multirun)
            if not runs:
                raise ConfigError("--multirun: the given values make no run at all; give at least one of each")
            composed = [hydra_compose(config_name, overrides=[*added, *run]) for run in runs]
            for one in composed:
                OmegaConf.resolve(one)
            return composed
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_explain(config_name, overrides, shown, error, multirun=multirun)) from error


def compose(overrides: Sequence[str]) -> Config:
    """Compose and check one configuration."""
    return check(overrides)[0]


def read_defaults(group: str, option: str) -> dict[str, Any]:
    """Return the values in the file of a group's option in `conf/`, by their dotted keys; empty where there is none."""
    file = paths.conf_dir() / group / f"{option}.yaml"
    if not file.is_file():
        return {}
    values = OmegaConf.to_container(OmegaConf.load(file))
    return {f"{group}.{key!s}": value for key, value in values.items()} if isinstance(values, dict) else {}


@contextlib.contextmanager
def _hydra(config_dir: str | None) -> Iterator[list[str]]:
    """Let Hydra's compose API work on `conf/` and a further folder; yield the overrides that add that folder."""
    # The compose API wants Hydra's global state to itself, and a running Hydra app wants it back.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(paths.conf_dir()), version_base="1.3"):
            yield _search_path(config_dir) if config_dir else []
    finally:
        GlobalHydra.instance().clear()
        if outer is not None:
            GlobalHydra.instance().initialize(outer)


def _search_path(config_dir: str) -> list[str]:
    """Return the override that makes Hydra search `config_dir` too."""
    quoted = f"file://{Path(config_dir).absolute()}".replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['{quoted}']"]


def _options(group: str, config_dir: str | None = None) -> list[str]:
    folders = [paths.conf_dir(), *([Path(config_dir)] if config_dir else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _groups() -> list[str]:
    return sorted(path.name for path in paths.conf_dir().iterdir() if path.is_dir())


def _refuse_unknown_options(overrides: Sequence[Override], config_dir: str | None) -> None:
    # Hydra passes over a missing option of an optional group, such as preset, in silence.
    groups = _groups()
    if any(override.key_or_group == "hydra.searchpath" for override in overrides):
        return  # the option may be anywhere
    for override in overrides:
        group = override.key_or_group
        if group not in groups or override.is_delete():
            continue
        chosen = override.sweep_string_iterator() if override.is_sweep_override() else iter([override.value()])
        for option in chosen:
            known = _options(group, config_dir)
            if str(option) not in known and (option is not None or group != "preset"):
                raise ConfigError(f"{group}={mask(str(option))}: no such option; expected {' or '.join(known)}")


def _refuse_names(overrides: Sequence[Override]) -> None:
    # A name alone, without the keys that go with it, makes no data set and no model.
    for override in overrides:
        section, _, key = override.key_or_group.partition(".")
        if key == "name" and section in _groups():
            raise ConfigError(f"{override.key_or_group}: choose with {section}=, e.g. {section}={_options(section)[0]}")


def _known_keys(config_name: str) -> Iterator[str]:
    groups = _GROUPS[config_name]
    yield from groups
    yield from SWITCHES if "train" in groups else ("wait",)
    for own in {"sweep", "promote"}.intersection(groups):
        yield from _flatten(OmegaConf.load(paths.conf_dir() / own / "default.yaml"), prefix=own)
    for (name, _), schema in _SCHEMAS.items():
        if name in groups:
            yield from (f"{name}.{field.name}" for field in dataclasses.fields(schema))


def _flatten(section: Any, *, prefix: str) -> Iterator[str]:
    for key, value in section.items():
        yield f"{prefix}.{key}"
        if isinstance(value, DictConfig):
            yield from _flatten(value, prefix=f"{prefix}.{key}")


def _explain(
    config_name: str, overrides: Sequence[str], shown: Sequence[str], error: Exception, *, multirun: bool
) -> str:
    """Return one line for what Hydra says in several."""
    known = list(_known_keys(config_name))
    for given_text, text in zip(overrides, shown, strict=True):
        try:
            override = OverridesParser.create().parse_override(given_text)
        except (HydraException, ValueError):
            return f"{text[:200]}: not an override; expected KEY=VALUE, e.g. train.num_epochs=3"
        key = override.key_or_group
        # What else may stand in sweep.space, Hydra knows better than the default's own keys.
        if key not in known and not key.startswith(("hydra", "sweep.space.")):
            return _unknown_key(key, known)
        if override.is_sweep_override() and not multirun:
            next_step = {
                CONFIG_NAME: "need --multirun (-m) before them",
                SWEEP_CONFIG_NAME: "stand in sweep.space",
            }.get(config_name, "are too many here: give one")
            return f"{text}: several values {next_step}"
        if f"'{key}'" in str(error):
            return f"{text}: the chosen {key.split('.')[0]} configuration has no such key"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
