"""What is asked for, and what becomes of it before a run is opened: the data found, or others in their stead."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnist_pipeline.config import compose
from mnist_pipeline.config import overrides as given
from mnist_pipeline.config.sections import Config, MnistConfig
from mnist_pipeline.data import catalogue, splits
from mnist_pipeline.data.dataset import Dataset, Found
from mnist_pipeline.data.mnist import MnistUnavailableError
from mnist_pipeline.pipeline import patch, provenance
from mnist_pipeline.pipeline.fingerprint import fingerprint, training_fingerprint
from mnist_pipeline.system import paths
from mnist_pipeline.tracking.tracker import PATCH_TAG, TRAINING_TAG

if TYPE_CHECKING:
    from mnist_pipeline.model.score import Score

# What stands in conf/train/default.yaml: a name leaves it out, and keeps its meaning should the default ever change.
_USUAL_LEARNING_RATE = 0.001
_USUAL_BATCH_SIZE = 32

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
    tags = {"data.requested": config.data.name}
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
            tags["data.dropped_overrides"] = shown
        tags["data.fallback"] = fallback
        config = compose([*kept, f"data={fallback}"])
        found = catalogue.find(config.data)
        attempts = (*error.attempts, *found.attempts)
    tags["data.sources"] = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in attempts)[:5000]
    tags |= {"data.digest": found.digest, "data.test_digest": found.test.digest}
    return _of(config, overrides, found, tags)


def data_tags(request: Request) -> dict[str, str]:
    """Return the tags that say where the data came from, without those of a single training."""
    return {key: value for key, value in request.tags.items() if key.startswith("data.")}


def retarget(request: Request, config: Config) -> Request:
    """Return the request for `config` instead, on the same data."""
    return _of(config, request.overrides, request.found, request.tags)


def _of(config: Config, overrides: Sequence[str], found: Found, tags: dict[str, str]) -> Request:
    prints = {
        "fingerprint": fingerprint(config, data_digest=found.digest),
        TRAINING_TAG: training_fingerprint(config, data_digest=found.digest),
    }
    dataset = splits.split(found, config.data)
    return Request(
        config=config,
        overrides=tuple(map(given.mask, overrides)),
        found=found,
        dataset=dataset,
        tags={**tags, **prints},
    )


def describe_name(config: Config) -> str:
    """Return a run's name: the data, what is swept most often, and of the rest what is not as usual."""
    train, split = config.train, config.data
    unusual = {
        f"lr{train.learning_rate:g}": train.learning_rate != _USUAL_LEARNING_RATE,
        f"b{train.batch_size}": train.batch_size != _USUAL_BATCH_SIZE,
        "all": split.validation_size == 0,  # of the images that are not for the test
        f"split{split.split_seed}": split.validation_size > 0 and split.split_seed != 0,
    }
    parts = [
        f"{split.name}-w{config.model.hidden_width}-d{config.model.dropout_rate:g}",
        f"e{train.num_epochs}-s{train.seed}",
        *(part for part, is_named in unusual.items() if is_named),
    ]
    return "-".join(parts)


def describe(config: Config, dataset: Dataset, *, score: "Score | None" = None) -> str:
    """Return what MLflow shows as a run's description, in Markdown; `score` is that of the test split."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    result = f" **Test accuracy {score.accuracy:.4f}**, loss {score.loss:.4f}." if score else ""
    return f"**{dataset.name}** ({sizes}); {describe_training(config)}.{result}"


def describe_training(config: Config) -> str:
    """Return in words what is trained, and how."""
    return (
        f"one hidden layer of {config.model.hidden_width} units, dropout {config.model.dropout_rate:g}; Adam "
        f"{config.train.learning_rate:g}, batches of {config.train.batch_size}, {config.train.num_epochs} epochs, "
        f"seed {config.train.seed}"
    )


def code_tags() -> dict[str, str]:
    """Return the tags that say which code ran, and what became of its changes that are in no commit."""
    root = paths.checkout()
    state = provenance.git_state(root) if root else None
    if state is None:
        return {}
    kept = patch.make(root) if root else None
    if kept is None:
        _log.warning(
            "the code differs from its commit in ways that cannot be kept with the run: commit it for the record"
        )
    return {
        "mlflow.source.git.commit": state.commit,
        "git.dirty": str(state.is_dirty).lower(),
        PATCH_TAG: _describe_patch(kept),
    }


def _describe_patch(kept: patch.Patch | None) -> str:
    if kept is None:
        return "lost"
    if not kept.is_exact:
        return "masked"
    return "kept" if kept.content else "none"
