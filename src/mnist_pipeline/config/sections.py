"""The configuration: one dataclass per section. `compose.py` fills them from `conf/` and the command line.

The YAML files hold the values; the dataclasses hold types, units, meaning and checks. Nothing heavy is imported, so
that a wrong configuration is reported at once.
"""

import dataclasses
import enum
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

from mnist_pipeline.system import plain_yaml
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address

_MAX = 2**31 - 1


def _require(condition: bool, *, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


class Fallback(enum.Enum):
    """The data set to use if the requested one is not available."""

    digits = "digits"


@dataclass
class DataConfig:
    """`data`: which data set, and how it is split. Further keys are the parameters of the option's own function."""

    option: str
    """The option that was chosen with `data=`."""
    target: str
    """Dotted name of the function that loads the data, `_target_` in YAML."""
    arguments: Mapping[str, Any]
    """Its keyword arguments."""
    name: str
    """Of the data set, and so of its experiment and its registered model."""
    validation_size: int | float = 0.1
    """Validation images held out of those that are not for the test, stratified by class: their number, or their share
    in (0, 1); 0 for none. A validation split that the data brings is kept."""
    split_seed: Annotated[int, Ge(0), Le(_MAX)] = 0
    """Seed of the choice of the validation images."""
    test_size: int | float | None = None
    """Test images, a number or a share, stratified by class, where the data brings no test split; null: a fifth."""
    test_seed: Annotated[int, Ge(0), Le(_MAX)] = 0
    """Seed of the choice of the test images. Another test split is another data set: its runs are not comparable."""
    fallback: Fallback | None = None
    """Data set to use if this one is not available; null: fail."""

    def __post_init__(self) -> None:
        _require(
            bool(re.fullmatch(r"[\w.-][\w. -]{0,99}", self.name)) and not set(self.name) <= {".", " "},
            key="data.name",
            value=self.name,
            expected="a name of 1 to 100 letters, digits, dots, dashes and blanks",
        )
        _require_size(self.validation_size, key="data.validation_size", minimum=0)
        if self.test_size is not None:
            _require_size(self.test_size, key="data.test_size", minimum=1)

    def values(self) -> dict[str, Any]:
        """Return the values by their keys in YAML, without `_target_` and what does not apply."""
        always = {"name": self.name, "validation_size": self.validation_size, "split_seed": self.split_seed}
        others = {"test_size": self.test_size, "test_seed": self.test_seed, "fallback": self.fallback}
        return {**always, **{key: value for key, value in others.items() if value}, **self.arguments}


def _require_size(value: float, *, key: str, minimum: int) -> None:
    is_share = isinstance(value, float)
    _require(
        0 < value < 1 if is_share and value else minimum <= value < 2**31,
        key=key,
        value=value,
        expected=f"a number of images from {minimum}, or a share between 0 and 1",
    )


@dataclass(frozen=True)
class Component:
    """An option whose keys are the parameters of a function: a model, an optimiser, a learning rate schedule.

    Attributes:
        name: Of the option, as it was chosen: `dense` of `model=dense`.
        target: Dotted name of its function, `_target_` in YAML.
        arguments: The function's keyword arguments.
        supplied: Its parameters that the pipeline supplies.
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    supplied: tuple[str, ...] = ()


class Flip(enum.Enum):
    """How an image may be mirrored."""

    none = "none"
    horizontal = "horizontal"
    vertical = "vertical"
    both = "both"


@dataclass
class AugmentConfig:
    """`train.augment`: each image is changed at random each time that it is trained on. 0 turns a change off."""

    shift: Annotated[float, Ge(0), Lt(1)]
    """Up to this share of the height and of the width."""
    rotate: Annotated[float, Ge(0), Le(180)]
    """Up to so many degrees, either way."""
    zoom: Annotated[float, Ge(0), Lt(1)]
    """Up to this share larger or smaller."""
    flip: Flip
    """Mirrored, or not, with the same probability."""
    contrast: Annotated[float, Ge(0), Lt(1)]
    """Up to this share more or less."""

    def is_on(self) -> bool:
        """Return whether anything is changed."""
        return any(self.values().values())

    def values(self) -> dict[str, Any]:
        """Return the values that change anything."""
        return {key: value for key, value in vars(self).items() if value and value is not Flip.none}


class StoppingMetric(enum.Enum):
    """The metric that early stopping watches."""

    validation_loss = "validation/loss"
    validation_accuracy = "validation/accuracy"
    train_loss = "train/loss"
    train_accuracy = "train/accuracy"

    @property
    def is_loss(self) -> bool:
        """Whether less is better."""
        return self.value.endswith("/loss")


@dataclass
class EarlyStoppingConfig:
    """`train.early_stopping`: training ends when a metric no longer improves."""

    patience: Annotated[int, Ge(1)] | None
    """Epochs without improvement after which training ends; null: it never ends early."""
    min_delta: Annotated[float, Ge(0)]
    """A smaller improvement counts as none."""
    metric: StoppingMetric
    restore_best: bool
    """Whether the model is that of the best epoch, instead of the last."""


class ClassWeight(enum.Enum):
    """How much the images of a class count in the loss."""

    balanced = "balanced"
    """In inverse proportion to their number, so that every class counts the same."""


@dataclass
class TrainConfig:
    """`train`: sparse categorical cross-entropy from logits, minimised step by step."""

    num_epochs: Annotated[int, Ge(1), Le(_MAX)]
    """Passes over the training images."""
    batch_size: Annotated[int, Ge(1), Le(_MAX)]
    """Images per step; the last step of an epoch may have fewer."""
    learning_rate: Annotated[float, Gt(0)]
    """The optimiser's step size, before the schedule."""
    optimizer: Component
    schedule: Component
    """How the learning rate changes from step to step."""
    clip_norm: Annotated[float, Gt(0)] | None
    """Largest norm of all gradients together; larger ones are scaled down to it. null: any."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)]
    """Share of a label's probability that is spread evenly over all classes."""
    class_weight: ClassWeight | None
    early_stopping: EarlyStoppingConfig
    augment: AugmentConfig
    seed: Annotated[int, Ge(0), Le(_MAX)]
    """Seed of the initial weights, of the order of each epoch, of dropout and of augmentation."""
    num_threads: Annotated[int, Ge(1), Le(1024)] | None
    """Threads of TensorFlow; null: what is fastest for the model, which `Config` fills in."""
    checkpoint_every: Annotated[int, Ge(1), Le(_MAX)]
    """Epochs between two checkpoints; the last epoch always has one. Does not affect the result."""

    def values(self) -> dict[str, Any]:
        """Return the values by their keys, without those that are off."""
        values = dict(vars(self))
        for key in ("clip_norm", "label_smoothing", "class_weight"):
            if not values[key]:
                del values[key]
        if self.early_stopping.patience is None:
            del values["early_stopping"]
        return values


@dataclass
class EvaluateConfig:
    """`evaluate`: what is computed on the test split."""

    num_calibration_bins: Annotated[int, Ge(1), Le(1000)]
    """Bins of equal width in the reliability diagram and the expected calibration error."""
    num_mistakes: Annotated[int, Ge(1), Le(400)]
    """How many of the most confident mistakes are shown as images."""


@dataclass
class TrackingConfig:
    """`tracking`: where MLflow keeps the runs."""

    uri: Address | None
    """MLflow tracking URI; null: `MLFLOW_TRACKING_URI` if it is set, else the SQLite store under `mlruns/`."""
    experiment: str
    """MLflow experiment that the run belongs to."""
    patience_sec: Annotated[float, Ge(0)] = 300.0
    """How long, in s, a run waits for a tracking server or database that is away."""
    artifact_location: str | None = None
    """Where a new experiment keeps its artifacts, a folder or the URI of a store such as S3; null: the place that the
    tracking server chose, beside a SQLite store, and for any other database `mlruns/artifacts` of the home."""

    def __post_init__(self) -> None:
        _require(
            0 < len(self.experiment.strip()) <= 200,
            key="tracking.experiment",
            value=self.experiment,
            expected="a name of 1 to 200 characters",
        )
        _require(
            self.artifact_location is None or not Address(self.artifact_location).has_secret,
            key="tracking.artifact_location",
            value=Address(self.artifact_location or ""),
            expected="an address without a secret, because MLflow shows it; credentials belong in the environment",
        )


class ExecutorName(enum.Enum):
    """Where trainings are carried out."""

    local = "local"
    ray = "ray"


@dataclass
class ExecutorConfig:
    """`executor`: where trainings are carried out. It decides no result, and no fingerprint has it."""

    name: ExecutorName = ExecutorName.local
    num_workers: Annotated[int, Ge(1), Le(256)] | None = 1
    """Trainings of a multirun at once; null: as many as a cluster has room for. A sweep has `sweep.num_workers`."""
    address: str | None = None
    """`HOST:PORT` of the head of a Ray cluster; null: `RAY_ADDRESS`."""
    num_cpus: Annotated[float, Gt(0), Le(1024)] = 1
    """CPUs of the cluster that each worker takes."""
    resources: dict[str, float] = field(default_factory=dict)
    """What else of the cluster each worker takes, by the names that its nodes declare."""
    wait_sec: Annotated[float, Ge(0), Le(1e6)] = 60
    """How long, in s, a training waits for a worker in place of a lost one, before another worker resumes it."""
    silence_sec: Annotated[float, Ge(1), Le(1e6)] = 60
    """After this time, in s, without a sign a worker of the cluster counts as lost."""

    def __post_init__(self) -> None:
        if self.name is not ExecutorName.ray:
            return
        address = self.address or os.environ.get("RAY_ADDRESS") or ""
        shown = Address(address)
        _require(
            bool(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", address)),
            key="executor.address",
            value=shown or None,
            expected="HOST:PORT of the head of a Ray cluster, without a scheme, user or password: give "
            "executor.address= or RAY_ADDRESS, and the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
        )
        self.address = address
        for resource, amount in self.resources.items():
            _require(
                resource not in ("CPU", "memory") and 0 < amount < math.inf,
                key=f"executor.resources.{resource}",
                value=amount,
                expected="an amount above 0 of a resource that nodes declare; CPUs are executor.num_cpus",
            )


_SMALL_MODELS = ("mnist_pipeline.model.dense.build", "mnist_pipeline.model.mlp.build")
"""The models whose steps are too small for a second thread."""


@dataclass
class Config:
    """The whole configuration of a run, and what to do about other runs."""

    force: bool
    """Train again, as a new run, even if a finished run has the same fingerprint."""
    wait: bool
    """Wait if another command is making the same run, instead of failing."""
    data: DataConfig
    model: Component
    train: TrainConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)

    def __post_init__(self) -> None:
        if self.train.num_threads is None:
            # Not the number of cores: a result should not depend on how many the machine has.
            self.train = dataclasses.replace(self.train, num_threads=1 if self.model.target in _SMALL_MODELS else 2)

    @property
    def num_threads(self) -> int:
        """Threads of TensorFlow."""
        assert self.train.num_threads is not None
        return self.train.num_threads

    def flat(self) -> dict[str, Any]:
        """Return every section's values under their dotted keys, as Hydra's overrides and MLflow's params name them.

        Addresses are masked: what comes from here is logged.
        """
        return {f"{section}.{key}": _plain(value) for section, key, value in self._values()}

    def addresses(self) -> dict[str, Address]:
        """Return the addresses that are given, under their dotted keys."""
        return {f"{section}.{key}": value for section, key, value in self._values() if isinstance(value, Address)}

    def _values(self, *, whole: bool = False) -> Iterator[tuple[str, str, Any]]:
        """Yield sections, keys and values; those that are off only for the `whole` configuration."""
        for section in SECTIONS:
            config = getattr(self, section)
            if isinstance(config, Component):
                config = {"name": config.name, **config.arguments}
            yield from ((section, key, value) for key, value in _flatten(config, whole=whole))

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, section by section."""
        nested: dict[str, Any] = {"data": {"option": self.data.option, "_target_": self.data.target}}
        for dotted, component in self.components().items():
            _nest(nested, dotted, {"option": component.name, "_target_": component.target})
        for section, key, value in self._values(whole=True):
            dotted = f"{section}.{key}"
            if dotted not in ("model.name", *self.components()):
                _nest(nested, dotted, _plain(value))
        return plain_yaml.write(nested)

    def components(self) -> dict[str, Component]:
        """Return the chosen options that name a function, by the dotted keys of their groups."""
        return {"model": self.model, "train.optimizer": self.train.optimizer, "train.schedule": self.train.schedule}

    def modules(self) -> tuple[str, ...]:
        """Return the names of the modules whose functions the configuration names."""
        targets = [self.data.target, *(component.target for component in self.components().values())]
        return tuple(dict.fromkeys(target.rpartition(".")[0] for target in targets))


def _nest(nested: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        nested = nested.setdefault(section, {})
    nested[key] = value


def _flatten(section: Any, *, whole: bool) -> Iterator[tuple[str, Any]]:
    """Yield the values of a section by their keys, those of nested sections under dotted keys."""
    if isinstance(section, Mapping):
        values = section
    elif hasattr(section, "values") and (isinstance(section, DataConfig) or not whole):
        values = section.values()
    else:
        values = vars(section)
    for key, value in values.items():
        if isinstance(value, Component):
            yield key, value.name
            value = value.arguments
        elif not dataclasses.is_dataclass(value):
            yield key, value
            continue
        yield from ((f"{key}.{nested}", one) for nested, one in _flatten(value, whole=whole))


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Address) else value


SWITCHES = tuple(one.name for one in dataclasses.fields(Config) if one.type is bool)
SECTIONS = tuple(one.name for one in dataclasses.fields(Config) if one.name not in (*SWITCHES, "executor"))
"""The sections that describe a run. Where it is carried out is not among them, and is logged nowhere."""

ADDRESS_KEYS = ("data.npz_url", "data.idx_url", "data.url", "data.second_url", "tracking.uri", "sweep.storage")
"""The keys whose values may hold a secret."""
