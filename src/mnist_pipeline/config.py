"""The configuration: one dataclass a section. Hydra composes it from `conf/`; its DictConfig ends here.

The YAML files hold the values. The dataclasses hold types, units, meaning and checks. Nothing heavy is imported, so
that a wrong configuration is told within a second.
"""

import contextlib
import dataclasses
import difflib
import enum
import math
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_pipeline import paths
from mnist_pipeline.errors import ConfigError

CONFIG_NAME = "config"


def _require(condition: bool, *, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


def _require_integer(value: int, *, key: str, minimum: int, maximum: int = 2**31 - 1) -> None:
    _require(minimum <= value <= maximum, key=key, value=value, expected=f"an integer from {minimum:,} to {maximum:,}")


def _require_validation_size(value: int, *, num_images: int, num_classes: int) -> None:
    largest = num_images - num_classes
    _require(
        value == 0 or num_classes <= value <= largest,
        key="data.validation_size",
        value=value,
        expected=f"0 (no validation split) or {num_classes} to {largest:,} of the {num_images:,} images",
    )


class Fallback(enum.Enum):
    """The data set to go on with where MNIST cannot be had."""

    digits = "digits"


@dataclass
class MnistConfig:
    """`data=mnist`: the real MNIST, found on disk or downloaded."""

    NUM_IMAGES: ClassVar[int] = 60_000
    NUM_CLASSES: ClassVar[int] = 10

    name: str
    validation_size: int
    """Images held out of the 60,000 for validation, in the classes' own proportions; 0 for none."""
    split_seed: int
    """Seed of the choice of the validation images."""
    fallback: Fallback | None
    """Data set to go on with where MNIST cannot be had; null: fail."""
    npz_url: str
    """Mirror of `mnist.npz` in Keras's layout."""
    idx_url: str
    """Mirror of the four gzipped IDX files: the folder's address."""
    timeout_sec: float
    """Seconds without an answer after which a download is given up."""
    num_retries: int
    """Further attempts at each file before its mirror is given up."""

    def __post_init__(self) -> None:
        _require_validation_size(self.validation_size, num_images=self.NUM_IMAGES, num_classes=self.NUM_CLASSES)
        _require_integer(self.split_seed, key="data.split_seed", minimum=0)
        _require(
            0 < self.timeout_sec <= 3600,
            key="data.timeout_sec",
            value=self.timeout_sec,
            expected="a number of seconds above 0, at most 3600",
        )
        _require_integer(self.num_retries, key="data.num_retries", minimum=0, maximum=100)
        for key, url in (("data.npz_url", self.npz_url), ("data.idx_url", self.idx_url)):
            _require(
                url.startswith(("http://", "https://")), key=key, value=url, expected="an http:// or https:// address"
            )


@dataclass
class DigitsConfig:
    """`data=digits`: the handwritten digits that scikit-learn carries."""

    NUM_IMAGES: ClassVar[int] = 1_437
    NUM_CLASSES: ClassVar[int] = 10

    name: str
    validation_size: int
    """Images held out of the 1,437 for validation, in the classes' own proportions; 0 for none."""
    split_seed: int
    """Seed of the choice of the validation images."""

    def __post_init__(self) -> None:
        _require_validation_size(self.validation_size, num_images=self.NUM_IMAGES, num_classes=self.NUM_CLASSES)
        _require_integer(self.split_seed, key="data.split_seed", minimum=0)


DataConfig = MnistConfig | DigitsConfig


@dataclass
class ModelConfig:
    """`model=dense`: the baseline dense network."""

    name: str
    hidden_width: int
    """Units of the hidden layer."""
    dropout_rate: float
    """Share of the hidden units that is dropped in a training step, in [0, 1)."""

    def __post_init__(self) -> None:
        _require_integer(self.hidden_width, key="model.hidden_width", minimum=1, maximum=100_000)
        _require(
            0 <= self.dropout_rate < 1,
            key="model.dropout_rate",
            value=self.dropout_rate,
            expected="a number from 0 to below 1",
        )


@dataclass
class TrainConfig:
    """`train`: Adam on sparse categorical cross-entropy from logits."""

    num_epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images in a step; the last step of an epoch takes what is left."""
    learning_rate: float
    """Adam's step size."""
    seed: int
    """Seed of the initial weights, of the order of each epoch and of dropout."""
    num_threads: int
    """Threads of TensorFlow. The steps are so small that one is the fastest."""

    def __post_init__(self) -> None:
        _require_integer(self.num_epochs, key="train.num_epochs", minimum=1)
        _require_integer(self.batch_size, key="train.batch_size", minimum=1)
        _require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            key="train.learning_rate",
            value=self.learning_rate,
            expected="a finite number above 0",
        )
        _require_integer(self.seed, key="train.seed", minimum=0)
        _require_integer(self.num_threads, key="train.num_threads", minimum=1, maximum=1024)


@dataclass
class EvaluateConfig:
    """`evaluate`: what is worked out on the test split."""

    num_calibration_bins: int
    """Bins of equal width in the reliability diagram and the expected calibration error."""
    num_mistakes: int
    """The most confident mistakes that are shown as images."""

    def __post_init__(self) -> None:
        _require_integer(self.num_calibration_bins, key="evaluate.num_calibration_bins", minimum=1, maximum=1000)
        _require_integer(self.num_mistakes, key="evaluate.num_mistakes", minimum=1, maximum=400)


@dataclass
class TrackingConfig:
    """`tracking`: where MLflow keeps the runs."""

    uri: str | None
    """MLflow tracking URI; null: `MLFLOW_TRACKING_URI` where that is set, else the SQLite store under `mlruns/`."""
    experiment: str
    """MLflow experiment that the run belongs to."""

    def __post_init__(self) -> None:
        _require(
            0 < len(self.experiment.strip()) <= 200,
            key="tracking.experiment",
            value=self.experiment,
            expected="a name of 1 to 200 characters",
        )


@dataclass
class Config:
    """The whole configuration of a run."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig

    def flat(self) -> dict[str, Any]:
        """Return every value under its dotted key, as Hydra's overrides and MLflow's params name it.

        A password in `tracking.uri` is left out: what comes from here is logged.
        """
        flat = {
            f"{section}.{key}": value.value if isinstance(value, enum.Enum) else value
            for section in _SECTIONS
            for key, value in vars(getattr(self, section)).items()
        }
        return {**flat, "tracking.uri": self.tracking.uri and without_password(self.tracking.uri)}

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, section by section."""
        nested = OmegaConf.create()
        for dotted, value in self.flat().items():
            OmegaConf.update(nested, dotted, value)
        return OmegaConf.to_yaml(nested)


def without_password(uri: str) -> str:
    """Return `uri` with three stars for the password that it may hold."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


_SECTIONS = tuple(field.name for field in dataclasses.fields(Config))
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
    _refuse_unknown(values.keys(), known=_SECTIONS, prefix="")
    sections = {name: _section(name, values.get(name)) for name in _SECTIONS}
    return Config(**sections)


def _section(section: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{section}={values}: expected a section of keys, e.g. {section}={_options(section)[0]}")
    schema = _SCHEMAS.get((section, "")) or _SCHEMAS.get((section, str(values.get("name"))))
    if schema is None:
        known = [name for group, name in _SCHEMAS if group == section]
        raise ConfigError(f"{section}.name={values.get('name')}: expected {' or '.join(known)}; choose with {section}=")
    hints = typing.get_type_hints(schema)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    _refuse_unknown(values.keys(), known=fields, prefix=f"{section}.")
    for key in fields:
        if key not in values or values[key] == "???":
            raise ConfigError(f"{section}.{key} is missing: give it a value, e.g. in conf/{section}/")
    return schema(**{key: _typed(values[key], hint, key=f"{section}.{key}") for key, hint in fields.items()})


def _typed(value: Any, hint: Any, *, key: str) -> Any:
    """Return `value` as the type that the field declares; a number may be written as text, as MLflow stores it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    try:
        if issubclass(hint, enum.Enum):
            return hint(value)
        if hint is int and isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
        if hint is str and isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
    except ValueError:
        pass
    names = {int: "an integer", float: "a number", str: "text"}
    expected = names.get(hint) or " or ".join([*(option.value for option in hint), "null"])
    raise ConfigError(f"{key}={'null' if value is None else value}: expected {expected}")


def _refuse_unknown(keys: Iterable[object], *, known: Collection[str], prefix: str) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(_unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in known]))


def _unknown_key(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "mnist-pipeline train --cfg job shows every key"
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
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    with _hydra(config_dir) as added:
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            _refuse_unknown_options(parsed, config_dir)
            _refuse_names(parsed)
            runs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0] if multirun else [list(overrides)]
            if not runs:
                raise ConfigError("--multirun: the given values make no run at all; give at least one of each")
            return [from_hydra(hydra_compose(CONFIG_NAME, overrides=[*added, *run])) for run in map(list, runs)]
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_explain(overrides, error, multirun=multirun)) from error


def compose(overrides: Sequence[str]) -> Config:
    """Compose and check one configuration."""
    return check(overrides)[0]


def without_group(overrides: Sequence[str], group: str) -> tuple[list[str], list[str]]:
    """Split overrides into those that leave `group` alone and those that choose it or set a key of it."""
    kept: list[str] = []
    dropped: list[str] = []
    for override in overrides:
        key = OverridesParser.create().parse_override(override).key_or_group
        (dropped if key == group or key.startswith(f"{group}.") else kept).append(override)
    return kept, dropped


@contextlib.contextmanager
def _hydra(config_dir: str | None) -> Iterator[list[str]]:
    """Let Hydra's compose API work on `conf/` and a further folder; yield the overrides that add that folder."""
    register_resolvers()
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


def register_resolvers() -> None:
    """Teach OmegaConf `${mlruns_dir:}`, which conf/config.yaml uses."""
    OmegaConf.register_new_resolver("mlruns_dir", lambda: str(paths.mlruns_dir()), replace=True)


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
                raise ConfigError(f"{group}={option}: no such option; expected {' or '.join(known)}")


def _refuse_names(overrides: Sequence[Override]) -> None:
    # A name alone, without the keys that go with it, makes no data set and no model.
    for override in overrides:
        section, _, key = override.key_or_group.partition(".")
        if key == "name" and section in _groups():
            raise ConfigError(f"{override.key_or_group}: choose with {section}=, e.g. {section}={_options(section)[0]}")


def _known_keys() -> Iterator[str]:
    for (section, _), schema in _SCHEMAS.items():
        for field in dataclasses.fields(schema):
            yield f"{section}.{field.name}"


def _explain(overrides: Sequence[str], error: Exception, *, multirun: bool) -> str:
    """Return one line for what Hydra tells in several."""
    known = [*_known_keys(), *_groups()]
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except (HydraException, ValueError):
            return f"{text[:200]}: not an override; expected KEY=VALUE, e.g. train.num_epochs=3"
        key = override.key_or_group
        if key not in known and key.split(".")[0] != "hydra":
            return _unknown_key(key, known)
        if override.is_sweep_override() and not multirun:
            return f"{text}: several values need --multirun (-m) before them"
        if f"'{key}'" in str(error):
            return f"{text}: the chosen {key.split('.')[0]} configuration has no such key"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
