"""How a worker trains a task. The fork server imports this module, once for all workers; see `preloaded.py`."""

import gc
from collections.abc import Callable

import keras

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Dataset, Found
from mnist_pipeline.data.splits import split
from mnist_pipeline.executors.failure import MEMORY_STEP, RESUME, Cause, Failure
from mnist_pipeline.executors.worker import Reported
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.pipeline.checkpoints import decode, encode
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.tracking.record import Point, read_epoch_metrics
from mnist_pipeline.train.epochs import Epoch, TrainState
from mnist_pipeline.train.fit import LossNotFiniteError, fit
from mnist_pipeline.train.runtime import OUT_OF_MEMORY, describe_shortage, start_tensorflow

_MAX_REASON_LENGTH = 2_000


class StoppedError(Exception):
    """The training is over, or no longer wanted."""


class TrainingRoom:
    """The data of a worker and the last split of it, and the trainings on them, one after the other."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._splits: dict[tuple[float, int], Dataset] = {}

    def train(self, config: Config, start: bytes | None, report: Callable[[Reported], None]) -> Failure | None:
        """Train as `config` says, and report every epoch with its checkpoint, first the epochs of `start`.

        Args:
            config: Of the training.
            start: The encoded state to resume from, which may have more epochs than requested.
            report: Called after each epoch; raises StoppedError where the training is over, or no longer wanted.

        Returns:
            None, or why the training failed.
        """
        try:
            start_tensorflow(config.num_threads)
            _train(config, self._find_split(config), decode(start) if start else None, report)
        except StoppedError:
            return None
        except Exception as error:
            return explain(error)
        finally:
            keras.backend.clear_session()
            gc.collect()  # models are reference cycles, and a worker builds hundreds of them
        return None

    def _find_split(self, config: Config) -> Dataset:
        key = (config.data.validation_size, config.data.split_seed)
        if key not in self._splits:
            self._splits.clear()  # the splits of the confirmation are used one after the other
            self._splits[key] = split(self._found, config.data)
        return self._splits[key]


def explain(error: Exception) -> Failure:
    """Return the failure that an error of a training means."""
    described = f"{type(error).__name__}: {error}"[:_MAX_REASON_LENGTH]
    match error:
        case LossNotFiniteError() | ConfigError():
            return Failure(Cause.diverged, described)
        case OSError():
            return Failure(Cause.surroundings, f"{error.strerror or described} ({described})", f"fix that and {RESUME}")
        case _ if isinstance(error, OUT_OF_MEMORY):
            return Failure(Cause.surroundings, describe_shortage(error), MEMORY_STEP)
    return Failure(Cause.error, described)


def _train(config: Config, dataset: Dataset, state: TrainState | None, report: Callable[[Reported], None]) -> None:
    checkpoint: bytes | None = None

    def keep(state: TrainState) -> None:
        nonlocal checkpoint
        checkpoint = encode(state)

    def on_epoch(epoch: Epoch) -> None:
        nonlocal checkpoint
        # Not the epoch itself: who receives it would have to import TensorFlow to unpickle it.
        report((Point(epoch.number, read_epoch_metrics(epoch), epoch.ended_ms), checkpoint))
        checkpoint = None

    for epoch in state.history if state else ():
        on_epoch(epoch)
    model = build(
        config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=config.train.seed
    )
    fit(model, dataset, config.train, start=state, checkpoint=keep, on_epoch=on_epoch)
