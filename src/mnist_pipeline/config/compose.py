"""From `conf/` and the command line to plain values, by Hydra, and from those to checked dataclasses.

A command declares its `Schema` and composes once. Every mistake is reported in one line: the value, what was expected
and the next step.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mnist_pipeline.config import functions, hydra_internals
from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.coerce import coerce, fill, list_keys, refuse_unknown, unknown_key
from mnist_pipeline.config.sections import (
    Component,
    Config,
    DataConfig,
    EvaluateConfig,
    ExecutorConfig,
    TrackingConfig,
    TrainConfig,
)
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import mask


@dataclass(frozen=True)
class Schema:
    """What a command can be configured with.

    Attributes:
        config_name: The primary configuration in `conf/`.
        sections: The dataclass of each section.
        switches: Keys outside of the sections, true or false.
        free_prefixes: Beginnings of keys that the dataclasses do not list.
        several_values: What to do if an override has several values.
    """

    config_name: str
    sections: Mapping[str, type]
    switches: tuple[str, ...]
    free_prefixes: tuple[str, ...] = ()
    several_values: str = "are too many here: give one"

    def known_keys(self) -> list[str]:
        """Return every group and dotted key."""
        keys = [*self.sections, "preset", *self.switches]
        for name, schema in self.sections.items():
            keys += list_keys(schema, prefix=name)
        return [*(key for key in keys if key.rpartition(".")[2] not in _NOT_IN_YAML), *_list_arguments(self.sections)]


SPACE = "_space_"
"""The key of a model's file that holds what a sweep tries of it."""

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "model": functions.MODEL_SUPPLIED,
    "train/optimizer": (),
    "train/schedule": ("step", "num_steps", "steps_per_epoch", "learning_rate"),
}
"""The groups whose options name a function, beside `data`, and the parameters that the pipeline supplies to it."""

_NOT_IN_YAML = ("option", "target", "arguments", "supplied")
RUN = Schema(
    config_name="config",
    sections={
        "data": DataConfig,
        "model": Component,
        "train": TrainConfig,
        "evaluate": EvaluateConfig,
        "tracking": TrackingConfig,
        "executor": ExecutorConfig,
    },
    switches=("force", "wait"),
    several_values='need --multirun (-m) before them (with make: ARGS="-m ...")',
)


def compose(overrides: Sequence[str]) -> Config:
    """Return the checked configuration of one run.

    Raises:
        ConfigError: It is wrong; the message names the value and what was expected.
    """
    return check(overrides)[0]


def check(overrides: Sequence[str], *, multirun: bool = False, config_dir: str | None = None) -> list[Config]:
    """Return the checked configuration of each run that the overrides ask for.

    Args:
        overrides: Of the command line, in Hydra's grammar.
        multirun: Whether `KEY=A,B` stands for several runs.
        config_dir: A further folder to search for presets and group options.

    Raises:
        ConfigError: Any of them is wrong.
    """
    return [read_run(values) for values in compose_runs(RUN, overrides, multirun=multirun, config_dir=config_dir)]


def compose_with_data(
    overrides: Sequence[str], data: str, *, schema: Schema = RUN, config_dir: str | None = None
) -> Config:
    """Return the checked configuration of a run on the data option `data` instead.

    Everything that belongs to the group `data` is replaced, whether it came from the command line or from a preset.

    Raises:
        ConfigError: It is wrong.
    """
    kept, _ = given.without_group(overrides, "data")
    values = compose_values(schema, [*kept, f"data={data}"], config_dir=config_dir)
    alone = compose_values(schema, [f"data={data}"], config_dir=config_dir)
    return read_run({**values, "data": alone["data"]})


def read_run(values: Mapping[str, Any]) -> Config:
    """Return the configuration of a run in composed values.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    # A preset may have a section for the sweep, which a single run ignores.
    refuse_unknown(values, known=[*RUN.sections, *RUN.switches, "sweep"])
    # Where it is carried out is nothing of the run, and is not in the configuration that a run has logged.
    named = [name for name in RUN.sections if name != "executor" or name in values]
    sections = {name: read_section(RUN, name, values.get(name)) for name in named}
    return Config(**sections, **{key: coerce(values.get(key, False), bool, key=key) for key in RUN.switches})


def read_section(schema: Schema, name: str, values: Any) -> Any:
    """Return the dataclass of the section `name`.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    if name in COMPONENTS:
        return read_component(name, values)
    if not isinstance(values, dict):
        raise ConfigError(f"{name}={values}: expected a section of keys, e.g. {name}={list_options(name)[0]}")
    if name == "data":
        return _read_data(values)
    nested = {group.rpartition("/")[2]: group for group in COMPONENTS if group.startswith(f"{name}/")}
    components = {key: read_component(group, values.get(key)) for key, group in nested.items()}
    own = {key: value for key, value in values.items() if key not in nested}
    return fill(schema.sections[name], own, prefix=name, **components)


def read_component(group: str, values: Any) -> Component:
    """Return the option of a group whose keys are the parameters of a function.

    Raises:
        ConfigError: There is no such function, a key is unknown or missing, or a value has the wrong type.
    """
    prefix = group.replace("/", ".")
    if not isinstance(values, dict) or "option" not in values:
        shown = "null" if values is None else values
        raise ConfigError(f"{prefix}={shown}: expected a section of keys, e.g. {group}={list_options(group)[0]}")
    values = {key: value for key, value in values.items() if key != SPACE}
    option, target = str(values.pop("option")), values.pop(functions.TARGET, None)
    if target is None:
        raise ConfigError(f"{prefix}={option}: it has no _target_: give it the dotted name of its function")
    function = functions.read(target, key=f"{prefix}.{functions.TARGET}", supplied=COMPONENTS[group])
    if "name" in function.hints:
        raise ConfigError(f"{prefix}.{functions.TARGET}={target}: {prefix}.name is the option's name; rename it")
    arguments = function.read_arguments(values, prefix=prefix)
    return Component(option, target, arguments, function.supplied)


def _read_data(values: Mapping[str, Any]) -> DataConfig:
    own = tuple(field.name for field in dataclasses.fields(DataConfig) if field.name not in _NOT_IN_YAML)
    values = dict(values)
    option, target = values.pop("option"), values.pop(functions.TARGET, None)
    if target is None:
        raise ConfigError(f"data={option}: it has no _target_: give it the dotted name of the function that loads it")
    function = functions.read(target, key=f"data.{functions.TARGET}")
    clash = sorted(set(own) & set(function.hints))
    if clash:
        raise ConfigError(f"data.{functions.TARGET}={target}: data.{clash[0]} is a key of every data set; rename it")
    arguments = function.read_arguments(values, prefix="data", others=own)
    common = {key: value for key, value in values.items() if key in own}
    parsed: DataConfig = fill(DataConfig, common, prefix="data", option=option, target=target, arguments=arguments)
    return parsed


def _list_arguments(sections: Collection[str]) -> list[str]:
    """Return the keys of the options in `conf/` that name a function, of some sections."""
    keys: list[str] = []
    for group in ("data", *COMPONENTS):
        prefix = group.replace("/", ".")
        if prefix.partition(".")[0] not in sections:
            continue
        for option in list_options(group):
            target = read_defaults(group, option).get(f"{prefix}.{functions.TARGET}")
            function = functions.read(target, key=prefix, supplied=COMPONENTS.get(group, ()))
            keys += [f"{prefix}.{key}" for key in function.hints]
    return keys


def compose_values(schema: Schema, overrides: Sequence[str], *, config_dir: str | None = None) -> dict[str, Any]:
    """Return the plain values of a command's configuration, nested by section.

    Raises:
        ConfigError: Hydra refuses the overrides.
    """
    (values,) = compose_runs(schema, overrides, config_dir=config_dir)
    return values


def compose_runs(
    schema: Schema, overrides: Sequence[str], *, multirun: bool = False, config_dir: str | None = None
) -> list[dict[str, Any]]:
    """Return the plain values of each run that the overrides ask for.

    Raises:
        ConfigError: Hydra refuses the overrides.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    _require_utf8(config_dir)
    shown = [given.mask(override) for override in overrides]  # from here on no error quotes a secret in them
    with _hydra(config_dir) as added:
        try:
            overrides = expand_globs(overrides, config_dir=config_dir)
            parsed = given.parse(overrides)
            _refuse_launchers(parsed)
            _refuse_unknown_options(parsed, config_dir)
            _refuse_names(parsed)
            runs = given.split_runs(overrides, multirun=multirun)
            if not runs:
                raise ConfigError("--multirun: the given values make no run at all; give at least one of each")
            composed = [
                hydra_compose(
                    schema.config_name,
                    overrides=[*added, *given.loosen(given.keep_texts(run), schema.sections)],
                    return_hydra_config=True,
                )
                for run in runs
            ]
            return [_to_values(one) for one in composed]
        except yaml.YAMLError as error:
            raise ConfigError(f"a YAML file is damaged: {' '.join(str(error).split())}") from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            missing = re.search(r"Missing mandatory value: ([\w.]+)", str(error))
            if missing:
                raise ConfigError(f"{missing[1]} is missing: give {missing[1]}=VALUE") from error
            raise ConfigError(_explain(schema, overrides, shown, error, multirun=multirun)) from error


def expand_globs(overrides: Sequence[str], *, config_dir: str | None) -> list[str]:
    """Return the overrides with `preset=glob(*)` as a choice of the presets that match, and the like for every group.

    Raises:
        ConfigError: None match, or the key is not a group.
        HydraException, ValueError: An override is not in Hydra's grammar.
    """
    expanded = list(overrides)
    for number, override in enumerate(given.parse(overrides)):
        glob = hydra_internals.find_glob(override)
        if glob is None:
            continue
        if given.group_of(override) not in _list_groups():
            raise ConfigError(f"{overrides[number]}: glob() chooses among the options of a group, e.g. preset=glob(*)")
        options = list_options(given.group_of(override), config_dir)
        matching = glob.filter(options)
        if not matching:
            raise ConfigError(f"{overrides[number]}: no option matches; there are {', '.join(options)}")
        expanded[number] = f"{override.get_key_element()}={','.join(matching)}"
    return expanded


@functools.cache
def read_defaults(group: str, option: str) -> Mapping[str, Any]:
    """Return the values in the file of a group's option in `conf/`, by their dotted keys; empty if there is no file."""
    file = paths.conf_dir() / group / f"{option}.yaml"
    if not file.is_file():
        return {}
    values = OmegaConf.to_container(OmegaConf.load(file))
    prefix = group.replace("/", ".")
    return {f"{prefix}.{key!s}": value for key, value in values.items()} if isinstance(values, dict) else {}


def _to_values(composed: Any) -> dict[str, Any]:
    choices = composed.hydra.runtime.choices
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    if OmegaConf.is_dict(own.get("data")) and "name" not in own.data:
        with open_dict(own):
            own.data.name = choices["data"]
    values = OmegaConf.to_container(own, resolve=True)
    assert isinstance(values, dict)
    for group in ("data", *COMPONENTS):
        section: Any = values
        for part in group.split("/"):
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and group in choices:
            section["option"] = choices[group]
    return {str(key): value for key, value in values.items()}


def name_after(path: Any) -> str:
    """Return a name for the data set in a file or folder."""
    stem = Path(path).expanduser().absolute().name.split(".")[0]
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "data"


OmegaConf.register_new_resolver("name_after", name_after, replace=True)


@contextlib.contextmanager
def _hydra(config_dir: str | None) -> Iterator[list[str]]:
    """Let Hydra compose from `conf/` and a further folder; yield the overrides that add that folder."""
    # The compose API wants Hydra's global state for itself, and a running Hydra app wants it back.
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
    quoted = f"file://{Path(config_dir).absolute()}".replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['{quoted}']"]


def _require_utf8(config_dir: str | None) -> None:
    """Refuse files that Hydra would misread: behind a byte order mark it does not see the line `# @package`."""
    for folder in (paths.conf_dir(), *([Path(config_dir)] if config_dir else [])):
        for file in folder.rglob("*.yaml"):
            try:
                text = file.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{file} is not in UTF-8: save it as UTF-8") from error
            except OSError as error:
                raise ConfigError(f"{file} cannot be read ({error.strerror})") from error
            if text.startswith("\ufeff"):
                raise ConfigError(f"{file} starts with a byte order mark: save it as UTF-8 without one")


def list_options(group: str, config_dir: str | None = None) -> list[str]:
    """Return the options of a group: those in `conf/`, and those in a further folder."""
    folders = [paths.conf_dir(), *([Path(config_dir)] if config_dir else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _list_groups() -> list[str]:
    folders = (path for path in paths.conf_dir().rglob("*") if path.is_dir())
    return sorted(path.relative_to(paths.conf_dir()).as_posix() for path in folders)


def _refuse_unknown_options(overrides: Sequence[Override], config_dir: str | None) -> None:
    # Hydra silently ignores a missing option of an optional group, such as preset.
    groups = _list_groups()
    if any(override.key_or_group == "hydra.searchpath" for override in overrides):
        return  # the option may be anywhere
    for override in overrides:
        group = given.group_of(override)
        if group not in groups or override.is_delete():
            continue
        chosen = override.sweep_string_iterator() if override.is_sweep_override() else iter([override.value()])
        for option in chosen:
            known = list_options(group, config_dir)
            if str(option) not in known and (option is not None or group != "preset"):
                shown = f"{override.key_or_group}={mask(str(option))}"
                raise ConfigError(f"{shown}: no such option; expected {' or '.join(known)}")


def _refuse_launchers(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if re.match(r"hydra[./](launcher|sweeper|sweep|mode)\b", override.key_or_group):
            raise ConfigError(
                f"{override.key_or_group}: the runs of a --multirun are started here, one after the other; leave it out"
            )


def _refuse_names(overrides: Sequence[Override]) -> None:
    # A name alone, without the keys that belong to it, selects no model. That of a data set selects nothing.
    for override in overrides:
        section, _, key = override.key_or_group.partition(".")
        if key == "name" and section != "data" and section in _list_groups():
            raise ConfigError(
                f"{override.key_or_group}: select one with {section}=, e.g. {section}={list_options(section)[0]}"
            )


def _explain(
    schema: Schema, overrides: Sequence[str], shown: Sequence[str], error: Exception, *, multirun: bool
) -> str:
    """Return one line for what Hydra says in several."""
    known = schema.known_keys()
    loose = (key for key in given.LOOSE if key.partition(".")[0] in schema.sections)
    free = ("hydra", *loose, *schema.free_prefixes)
    for override, text in zip(overrides, shown, strict=True):
        try:
            (parsed,) = given.parse([override])
        except (HydraException, ValueError):
            return f"{text[:200]}: not an override; expected KEY=VALUE, e.g. train.num_epochs=3"
        key = parsed.key_or_group
        if key not in known and not key.startswith(free):
            return str(unknown_key(key, known))
        if parsed.is_sweep_override() and not multirun:
            return f"{text}: several values {schema.several_values}"
        if f"'{key}'" in str(error):
            return f"{text}: the selected {key.split('.')[0]} configuration has no such key"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
