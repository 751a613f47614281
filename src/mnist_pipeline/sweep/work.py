"""What a worker does with a task. It imports TensorFlow, once for all workers."""

import gc
from collections.abc import Callable
from pathlib import Path

import keras

from mnist_pipeline.checkpoint import Checkpoints
from mnist_pipeline.config import Config
from mnist_pipeline.data import Dataset
from mnist_pipeline.model import build
from mnist_pipeline.train import Epoch, fit, set_num_threads


class StoppedError(Exception):
    """The training is no longer wanted."""


def train(config: Config, dataset: Dataset, *, folder: Path, report: Callable[[Epoch], None]) -> str | None:
    """Train as `config` says, and report every epoch, those first that a checkpoint in `folder` has.

    Args:
        config: What to train.
        dataset: The splits that it asks for.
        folder: Where the checkpoints are kept. They may be those of more epochs than are asked for.
        report: Is called after each epoch; where it raises StoppedError, the training ends.

    Returns:
        None, or why the training failed.
    """
    set_num_threads(1)
    try:
        _train(config, dataset, folder, report)
    except StoppedError:
        return None
    except Exception as error:  # whatever it is, the sweep records it and goes on
        return f"{type(error).__name__}: {error}"
    finally:
        keras.backend.clear_session()
        gc.collect()  # models are cycles, and hundreds of them pass through here
    return None


def _train(config: Config, dataset: Dataset, folder: Path, report: Callable[[Epoch], None]) -> None:
    checkpoints = Checkpoints(folder)
    state = checkpoints.load()
    known = state.history[: config.train.num_epochs] if state else ()
    for epoch in known:
        report(epoch)
    if len(known) == config.train.num_epochs:
        return
    model = build(
        config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed
    )

    fit(model, dataset, config.train, start=state, checkpoint=checkpoints.save, on_epoch=report)
