"""What holds for every training of a sweep."""

import dataclasses
import enum
import hashlib
import json
import logging
from typing import Any

from mnist_pipeline.pipeline.fingerprint import deciding
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.sweep.space import Interval, SweepConfig, read_params

_log = logging.getLogger(__name__)


class Setting:
    """The baseline, its data, and how the sweep goes about it.

    Attributes:
        base: The configuration of every training, but for the swept keys.
        baseline: The values that it has for those.
    """

    def __init__(self, request: Request, config: SweepConfig) -> None:
        # A worker has one thread, and its checkpoints are what a killed sweep goes on from.
        train = dataclasses.replace(request.config.train, num_threads=1, checkpoint_every=1)
        self.base = dataclasses.replace(request.config, train=train)
        self.request = request
        self.config = config
        self.baseline = read_params(self.base, config.space)

    def identity(self) -> dict[str, Any]:
        """Return all that decides what the trials come to: a study is made of one and the same."""
        decided = deciding(self.base, data_digest=self.request.found.digest)
        fixed = {key: value for key, value in decided.pop("config").items() if not key.startswith("evaluate.")}
        space = {f"sweep.space.{key}": str(dimension) for key, dimension in self.config.space.items()}
        how = {
            f"sweep.{key}": str(getattr(self.config, key))
            for key in ("metric", "direction", "sampler", "pruner", "seed")
        }
        return {**fixed, **decided, **space, **how}

    def default_name(self) -> str:
        """Return a name that every other sweep's differs from."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.base.data.name}-{digest[:8]}"

    def max_epochs(self) -> int:
        """Return the most epochs that a trial may have."""
        swept = self.config.space.get("train.num_epochs")
        if swept is None:
            return self.base.train.num_epochs
        return int(swept.high) if isinstance(swept, Interval) else max(int(value) for value in swept.choices)

    def has_baseline(self) -> bool:
        """Return whether the baseline is a point of the space; say so where it is none."""
        outside = [key for key, value in self.baseline.items() if not self.config.space[key].contains(value)]
        for key in outside:
            _log.warning(
                "%s=%s, the baseline's, is not in the space: the baseline is no trial", key, self.baseline[key]
            )
        return not outside


def describe_sweep(config: SweepConfig, request: Request) -> str:
    """Return what MLflow shows as the sweep's description, in Markdown."""
    swept = ", ".join(f"`{key}`" for key in config.space)
    return (
        f"{config.num_trials} trials of {swept} on **{request.dataset.name}**, by {config.metric} at the last epoch "
        f"({config.sampler.value}, {config.pruner.value} pruning)."
    )


def describe_config(config: SweepConfig) -> dict[str, Any]:
    """Return the settings of the sweep under their dotted keys, as params."""
    shown = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("space", "confirm", "storage")
    }
    if config.storage is not None:
        shown["storage"] = str(config.storage)
    if config.confirm is not None:
        shown |= {f"confirm.{key}": value for key, value in vars(config.confirm).items()}
    settings = {f"sweep.{key}": value.value if isinstance(value, enum.Enum) else value for key, value in shown.items()}
    return {**settings, **{f"sweep.space.{key}": dimension.describe() for key, dimension in config.space.items()}}
