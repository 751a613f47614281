"""The plan of a sweep: everything that holds for all of its trainings."""

import dataclasses
import enum
import hashlib
import json
import logging
from typing import Any

from mnist_pipeline.pipeline.fingerprint import deciding
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.sweep.space import Interval

_IDENTIFYING = ("metric", "direction", "sampler", "pruner", "seed")

NULL = "null"
"""How the tag of a setting says that it has no value."""

_log = logging.getLogger(__name__)


class SweepPlan:
    """The baseline, its data, and the settings of the sweep.

    Attributes:
        base: The configuration of every training, except for the swept keys.
        baseline: The values that `base` has for the swept keys.
    """

    def __init__(self, request: Request, config: SweepConfig) -> None:
        # A worker has one thread, and a killed sweep resumes from the workers' checkpoints.
        train = dataclasses.replace(request.config.train, num_threads=1, checkpoint_every=1)
        self.base = dataclasses.replace(request.config, train=train)
        self.request = request
        self.config = config
        self.baseline = config.space.read(self.base)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the results of the trials; it is the same for all trials of a study."""
        decided = deciding(self.base, data_digest=self.request.found.identity)
        fixed = {key: value for key, value in decided.pop("config").items() if not key.startswith("evaluate.")}
        space = {f"sweep.space.{key}": str(dimension) for key, dimension in self.config.space.items()}
        settings = {f"sweep.{key}": str(getattr(self.config, key)) for key in _IDENTIFYING}
        return {**fixed, **decided, **space, **settings, **self._identify_options()}

    def _identify_options(self) -> dict[str, Any]:
        """Return the values and the code of the options that are swept."""
        identity: dict[str, Any] = {}
        for group, options in self.config.space.options.items():
            for name, component in options.items():
                config = self.config.space.apply(self.base, {group: name})
                code = deciding(config, data_digest=self.request.found.identity)["code"]
                identity[f"{group}.{name}"] = {**component.arguments, "code": code}
        return identity

    def list_modules(self) -> tuple[str, ...]:
        """Return the modules whose functions the trials call."""
        options = self.config.space.options.items()
        configs = [self.config.space.apply(self.base, {group: name}) for group, found in options for name in found]
        return tuple(dict.fromkeys(module for config in (self.base, *configs) for module in config.modules()))

    def default_name(self) -> str:
        """Return a study name that no sweep with another identity has."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.base.data.name}-{digest[:8]}"

    def max_epochs(self) -> int:
        """Return the largest number of epochs that a trial may have."""
        swept = self.config.space.dimensions.get("train.num_epochs")
        if swept is None:
            return self.base.train.num_epochs
        return int(swept.high) if isinstance(swept, Interval) else max(int(value or 0) for value in swept.choices)

    def has_baseline(self) -> bool:
        """Return whether the baseline is a point of the space; log a warning if it is not."""
        outside = [key for key, value in self.baseline.items() if not self.config.space[key].contains(value)]
        for key in outside:
            _log.warning(
                "%s=%s of the baseline is not in the space: the baseline is not a trial", key, self.baseline[key]
            )
        return not outside


def describe_sweep(config: SweepConfig, request: Request) -> str:
    """Return the description that MLflow shows of the sweep, in Markdown."""
    swept = ", ".join(f"`{key}`" for key in config.space)
    when = "last" if request.config.train.early_stopping.patience is None else "kept"
    return (
        f"{config.num_trials} trials of {swept} on **{request.found.name}**, by {config.metric} at the {when} epoch "
        f"({config.sampler.value}, {config.pruner.value} pruning)."
    )


def list_tags(config: SweepConfig) -> dict[str, str]:
    """Return the settings of the sweep by their dotted keys.

    They are tags: the next command of the study may change some, and a run without params matches no filter for
    trainings, and adds no axis to a comparison of them.
    """
    tags = {f"sweep.space.{key}": str(dimension.describe()) for key, dimension in config.space.items()}
    for name in [field.name for field in dataclasses.fields(config) if field.name != "space"]:
        value = getattr(config, name)
        if name == "confirm" and value is not None:
            value = ", ".join(f"{key}={nested}" for key, nested in vars(value).items())
        tags[f"sweep.{name}"] = NULL if value is None else str(_to_plain(value))
    return tags


def _to_plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
