"""What is asked for, and what becomes of it before a run is opened: the data found, or others in their stead."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mnist_pipeline.config import compose
from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.sections import Config, MnistConfig
from mnist_pipeline.data import catalogue, splits
from mnist_pipeline.data.dataset import Dataset, Found
from mnist_pipeline.data.mnist import MnistUnavailableError
from mnist_pipeline.pipeline.fingerprint import fingerprint, training_fingerprint
from mnist_pipeline.tracking.record import Tag

if TYPE_CHECKING:
    pass

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user asked for, and what became of it before a run was opened.

    Attributes:
        config: What the run does; after a fallback not what was asked for.
        overrides: The command line's overrides, with stars for the secrets in them.
        found: The data set as it was found and verified.
        dataset: The same, split.
        tags: What is to be remembered of how the data was found.
    """

    config: Config
    overrides: tuple[str, ...]
    found: Found
    dataset: Dataset
    tags: dict[str, str]

    def overrides_to_yaml(self) -> str:
        """Return the overrides as a YAML list, which `RunRecord.read_yaml_list` reads back."""
        return OmegaConf.to_yaml(OmegaConf.create(list(self.overrides)))


def prepare(
    config: Config, overrides: Sequence[str], *, compose: Callable[[list[str]], Config] = compose.compose
) -> Request:
    """Find the data, before a run is opened. Where MNIST cannot be had, go on with digits if the configuration says so.

    The digits group then replaces `data`: it is composed anew, without the overrides that were meant for MNIST.

    Args:
        config: What was asked for.
        overrides: The overrides that it was composed from.
        compose: Composes others in the same way.

    Raises:
        MnistUnavailableError: No source has MNIST and `data.fallback` is null.
    """
    tags = {Tag.DATA_REQUESTED: config.data.name}
    try:
        found = catalogue.find(config.data)
        attempts = found.attempts
    except MnistUnavailableError as error:
        assert isinstance(config.data, MnistConfig)
        if config.data.fallback is None:
            raise
        fallback = config.data.fallback.value
        kept, dropped = given.without_group(overrides, "data")
        _log.warning("%s", error)
        _log.warning("FALLBACK: this run uses data=%s instead of data=%s", fallback, config.data.name)
        if dropped:
            shown = " ".join(map(given.mask, dropped))
            _log.warning("FALLBACK: dropped, since they were meant for %s: %s", config.data.name, shown)
            tags[Tag.DATA_DROPPED_OVERRIDES] = shown
        tags[Tag.DATA_FALLBACK] = fallback
        config = compose([*kept, f"data={fallback}"])
        found = catalogue.find(config.data)
        attempts = (*error.attempts, *found.attempts)
    tags[Tag.DATA_SOURCES] = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)[:5000]
    tags |= {Tag.DATA_DIGEST: found.digest, Tag.TEST_DIGEST: found.test.digest}
    return _of(config, overrides, found, tags)


def data_tags(request: Request) -> dict[str, str]:
    """Return the tags that say where the data came from, without those of a single training."""
    return {key: value for key, value in request.tags.items() if key.startswith("data.")}


def retarget(request: Request, config: Config) -> Request:
    """Return the request for `config` instead, on the same data."""
    return _of(config, request.overrides, request.found, request.tags)


def _of(config: Config, overrides: Sequence[str], found: Found, tags: dict[str, str]) -> Request:
    prints = {
        Tag.FINGERPRINT: fingerprint(config, data_digest=found.digest),
        Tag.TRAINING_FINGERPRINT: training_fingerprint(config, data_digest=found.digest),
    }
    dataset = splits.split(found, config.data)
    return Request(
        config=config,
        overrides=tuple(map(given.mask, overrides)),
        found=found,
        dataset=dataset,
        tags={**tags, **prints},
    )
