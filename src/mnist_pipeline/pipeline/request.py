"""A requested run, before it is opened: its configuration and data, or the fallback's, and its identity."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import OmegaConf

from mnist_pipeline.config import compose
from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.sections import Config
from mnist_pipeline.data import catalogue, splits
from mnist_pipeline.data.dataset import Attempt, Dataset, DataUnavailableError, Found
from mnist_pipeline.pipeline.fingerprint import fingerprint, training_fingerprint
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.tracking.record import Tag

_MAX_TAG_LENGTH = 5000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A requested run.

    Attributes:
        config: Of the run; after a fallback it differs from the requested one.
        overrides: Of the command line, with stars for the secrets in them.
        found: The data set as it was found and verified; it has enough images to be split.
        tags: The run's identity, and how its data was found.
    """

    config: Config
    overrides: tuple[str, ...]
    found: Found
    tags: dict[str, str]

    @cached_property
    def dataset(self) -> Dataset:
        """The same data, split. This takes a second, and only what trains here needs it."""
        return splits.split(self.found, self.config.data)

    def overrides_to_yaml(self) -> str:
        """Return the overrides as a YAML list, which `RunRecord.read_yaml_list` reads back."""
        return OmegaConf.to_yaml(OmegaConf.create(list(self.overrides)))


def prepare(
    config: Config,
    overrides: Sequence[str],
    *,
    compose_with_data: Callable[[Sequence[str], str], Config] = compose.compose_with_data,
) -> Request:
    """Find the data before a run is opened. If it is not available, use the fallback that the configuration names.

    Args:
        config: The requested configuration.
        overrides: The overrides that it was composed from.
        compose_with_data: Composes the same run on another data option.

    Raises:
        DataUnavailableError: No source has the data and `data.fallback` is null.
        ConfigError: Something is wrong with the data.
    """
    own, _ = given.without_group(overrides, "hydra")
    tags = {Tag.DATA_REQUESTED: config.data.name}
    try:
        found = catalogue.find(config.data)
        attempts = found.attempts
    except DataUnavailableError as error:
        if config.data.fallback is None:
            raise
        fallback = config.data.fallback.value
        tags |= _report_fallback(error, own, requested=config.data.name, fallback=fallback)
        config = compose_with_data(overrides, fallback)
        found = catalogue.find(config.data)
        attempts = (*error.attempts, *found.attempts)
    tags |= {
        Tag.DATA_OPTION: config.data.option,
        Tag.DATA_LEAKED: str(_count_leaked(found)),
        Tag.DATA_SOURCES: _describe_attempts(attempts),
        Tag.DATA_DIGEST: found.digest,
        Tag.TEST_DIGEST: found.test.digest,
    }
    return _identify(config, own, found, tags)


def _report_fallback(
    error: DataUnavailableError, overrides: Sequence[str], *, requested: str, fallback: str
) -> dict[str, str]:
    """Log that the run uses other data, and return the tags that say so."""
    _, dropped = given.without_group(overrides, "data")
    _log.warning("%s", error)
    _log.warning("FALLBACK: this run uses data=%s instead of data=%s", fallback, requested)
    if not dropped:
        return {Tag.DATA_FALLBACK: fallback}
    shown = " ".join(map(given.mask, dropped))
    _log.warning("FALLBACK: dropped, because they were meant for %s: %s", requested, shown)
    return {Tag.DATA_FALLBACK: fallback, Tag.DATA_DROPPED_OVERRIDES: shown}


def _count_leaked(found: Found) -> int:
    """Return how many test images are also training images, byte for byte; log a warning if there are any."""
    num_leaked = found.count_leaked()
    if num_leaked:
        _log.warning(
            "LEAKAGE: %s of the %s test images are also images for training or validation, byte for byte: the test "
            "figures are better than those for new images",
            f"{num_leaked:,}",
            f"{len(found.test):,}",
        )
    return num_leaked


def _describe_attempts(attempts: Sequence[Attempt]) -> str:
    return "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)[:_MAX_TAG_LENGTH]


def data_tags(request: Request) -> dict[str, str]:
    """Return the tags about the data, without those that identify a single training."""
    return {key: value for key, value in request.tags.items() if key.startswith("data.")}


def retarget(request: Request, config: Config) -> Request:
    """Return the request for `config` instead, on the same data."""
    return _identify(config, request.overrides, request.found, request.tags)


def _identify(config: Config, overrides: Sequence[str], found: Found, tags: dict[str, str]) -> Request:
    identity = {
        Tag.FINGERPRINT: fingerprint(config, data_digest=found.identity),
        Tag.TRAINING_FINGERPRINT: training_fingerprint(config, data_digest=found.identity),
    }
    splits.require_enough(found, config.data)
    stopping = config.train.early_stopping
    has_validation = found.validation is not None or splits.is_held_out(found, config.data)
    if stopping.patience is not None and not has_validation and stopping.metric.value.startswith("validation/"):
        raise ConfigError(
            f"train.early_stopping.metric={stopping.metric.value}: there are no validation images; give "
            "data.validation_size, or a metric of train/"
        )
    return Request(
        config=config,
        overrides=tuple(map(given.mask, overrides)),
        found=found,
        tags={**tags, **identity},
    )
