"""From a configuration to a data set: its function is called, and what that returns is checked and split."""

import logging

from mnist_pipeline.config import functions
from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data import cache
from mnist_pipeline.data.checking import check
from mnist_pipeline.data.dataset import Attempt, Dataset, Found, Images
from mnist_pipeline.data.splits import DEFAULT_TEST_SHARE, hold_out, split
from mnist_pipeline.system.errors import ConfigError

NUM_SHOWN = 5
"""Skipped files that are logged by name."""

_log = logging.getLogger(__name__)


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` describes.

    Raises:
        DataUnavailableError: No source has it.
        ConfigError: Something is wrong with the data, or it is too small for the splits.
    """
    return split(find(config), config)


def find(config: DataConfig) -> Found:
    """Return the data set that `config` names, before validation images are held out.

    Raises:
        DataUnavailableError: No source has it.
        ConfigError: Something is wrong with it, or it is too small for a test split.
    """
    if "path" not in config.arguments and functions.is_ours(config.target):
        return _read(config)  # the data sets that the package knows are kept where they were found
    key = cache.make_key(config)
    found = cache.find(config, key)
    if found is None:
        found = _read(config)
        cache.save(found, key)
    _report(found)
    return found


def _read(config: DataConfig) -> Found:
    try:
        given = functions.load(config.target, key=f"data.{functions.TARGET}")(**config.arguments)
        if not isinstance(given, Images):
            raise ValueError(f"{config.target} returned {type(given).__name__}: expected mnist_pipeline.Images")
        splits, class_names = check(given)
    except ValueError as error:
        raise ConfigError(f"data={config.option}: {error}") from error
    learn, test = splits["train"], splits.get("test")
    if test is None:
        size = DEFAULT_TEST_SHARE if config.test_size is None else config.test_size
        learn, test = hold_out(
            learn,
            size=size,
            seed=config.test_seed,
            key="data.test_size",
            class_names=class_names,
            in_place=functions.is_ours(config.target) and learn.images.flags.writeable,
        )
        _log.info(
            "data      it has no test split: %s of its images are held out (data.test_size, data.test_seed=%d)",
            f"{len(test):,}",
            config.test_seed,
        )
    return Found(
        name=config.name,
        learn=learn,
        validation=splits.get("validation"),
        test=test,
        class_names=class_names,
        attempts=tuple(given.attempts) or (Attempt(config.target, "found"),),
        skipped=tuple(given.skipped),
    )


def _report(found: Found) -> None:
    """Log what was left out."""
    for line in found.skipped[:NUM_SHOWN]:
        _log.warning("skipped   %s", line)
    if len(found.skipped) > NUM_SHOWN:
        _log.warning("skipped   %d more", len(found.skipped) - NUM_SHOWN)
