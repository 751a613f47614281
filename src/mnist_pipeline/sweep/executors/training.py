"""How a worker trains a task. The fork server imports this module, and TensorFlow with it, once for all workers."""

import gc
from collections.abc import Callable
from pathlib import Path

import keras

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.pipeline.checkpoints import Checkpoints, NotSavedError
from mnist_pipeline.sweep.failure import MEMORY_STEP, RESUME, Cause, Failure
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.train.epochs import Epoch
from mnist_pipeline.train.fit import LossNotFiniteError, fit
from mnist_pipeline.train.runtime import OUT_OF_MEMORY, describe_shortage, start_tensorflow

_MAX_REASON_LENGTH = 2_000


class StoppedError(Exception):
    """The training is over, or no longer wanted."""


def train(
    config: Config, find_split: Callable[[Config], Dataset], *, folder: Path, report: Callable[[Epoch], None]
) -> Failure | None:
    """Train as `config` says, and report every epoch, first those of a checkpoint in `folder`.

    Args:
        config: Of the training.
        find_split: Returns the splits of a configuration.
        folder: Of the checkpoints, which may have more epochs than requested.
        report: Called after each epoch; raises StoppedError where the training is over, or no longer wanted.

    Returns:
        None, or why the training failed.
    """
    try:
        start_tensorflow(1)
        _train(config, find_split(config), folder, report)
    except StoppedError:
        return None
    except Exception as error:
        return explain(error)
    finally:
        keras.backend.clear_session()
        gc.collect()  # models are reference cycles, and a worker builds hundreds of them
    return None


def explain(error: Exception) -> Failure:
    """Return the failure that an error of a training means."""
    described = f"{type(error).__name__}: {error}"[:_MAX_REASON_LENGTH]
    match error:
        case LossNotFiniteError() | ConfigError():
            return Failure(Cause.diverged, described)
        case NotSavedError():
            return Failure(Cause.surroundings, error.reason, f"free some space there and {RESUME}")
        case OSError():
            return Failure(Cause.surroundings, f"{error.strerror or described} ({described})", f"fix that and {RESUME}")
        case _ if isinstance(error, OUT_OF_MEMORY):
            return Failure(Cause.surroundings, describe_shortage(error), MEMORY_STEP)
    return Failure(Cause.error, described)


def _train(config: Config, dataset: Dataset, folder: Path, report: Callable[[Epoch], None]) -> None:
    checkpoints = Checkpoints(folder)
    state = checkpoints.load()
    for epoch in state.history if state else ():
        report(epoch)
    model = build(
        config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed
    )

    fit(model, dataset, config.train, start=state, checkpoint=checkpoints.save, on_epoch=report)
