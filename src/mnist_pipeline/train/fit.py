"""The training loop: epochs, validation, checkpoints."""

import math
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import numpy.typing as npt

from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data.dataset import Dataset, Split
from mnist_pipeline.model.prediction import predict_logits
from mnist_pipeline.model.score import Score, score
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.train.early_stopping import find_kept, is_complete
from mnist_pipeline.train.epochs import Epoch, History, TrainState
from mnist_pipeline.train.trainer import Trainer

Weights = tuple[npt.NDArray[np.generic], ...]


class LossNotFiniteError(UserError):
    """Training diverged."""


def fit(
    model: keras.Model,
    dataset: Dataset,
    config: TrainConfig,
    *,
    start: TrainState | None = None,
    on_traced: Callable[[], None] | None = None,
    checkpoint: Callable[[TrainState], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train `model` in place, by `config.optimizer` on the sparse categorical cross-entropy of its logits.

    With early stopping the model ends as it was after its best epoch, if `config` says so.

    Args:
        model: Any Keras classifier from uint8 images to float32 logits `(n, num_classes)`.
        dataset: Trained on `dataset.train`; `dataset.validation`, where there is one, is scored after every epoch.
        config: How it is trained, and how often a checkpoint is made.
        start: The state to resume from; the result is bit for bit that of an uninterrupted training.
        on_traced: Called before the first epoch: from now on, other threads can have Python most of the time.
        checkpoint: Called with the state after every `checkpoint_every` epochs and after the last, before `on_epoch`.
        on_epoch: Called after every epoch; if it raises, the training ends.

    Returns:
        Every epoch, in order.

    Raises:
        LossNotFiniteError: The training or the validation loss became infinite or NaN.
    """
    trainer = Trainer(model, dataset.train, config)
    history: History = []
    kept: Weights = ()
    if start is not None:
        trainer.restore(start.arrays)
        history += start.history
        kept = start.kept
    if on_traced is not None:
        trainer.trace()
        on_traced()
    while not is_complete(_watched(history, config), config):
        epoch = _run_epoch(trainer, model, dataset, config, number=len(history) + 1)
        history.append(epoch)
        if config.early_stopping.patience is not None and find_kept_epoch(history, config) == epoch.number:
            kept = _copy_weights(model)
        is_last = is_complete(_watched(history, config), config)
        if checkpoint is not None and (is_last or epoch.number % config.checkpoint_every == 0):
            checkpoint(TrainState(history=tuple(history), arrays=trainer.arrays(), kept=kept))
        if on_epoch is not None:
            on_epoch(epoch)
    for variable, array in zip(model.variables if kept else (), kept, strict=True):
        variable.assign(array)
    return history


def find_kept_epoch(history: Sequence[Epoch], config: TrainConfig) -> int:
    """Return the number of the epoch whose weights the trained model has."""
    return find_kept(_watched(history, config), config.early_stopping)


def _watched(history: Sequence[Epoch], config: TrainConfig) -> list[float]:
    """Return the values of the metric that early stopping watches; without early stopping, one for each epoch."""
    if config.early_stopping.patience is None:
        return [0.0] * len(history)
    split, name = config.early_stopping.metric.value.split("/")
    return [getattr(getattr(epoch, split), name) for epoch in history]


def _copy_weights(model: keras.Model) -> Weights:
    return tuple(np.array(variable.numpy()) for variable in model.variables)


def _run_epoch(trainer: Trainer, model: keras.Model, dataset: Dataset, config: TrainConfig, *, number: int) -> Epoch:
    began = time.perf_counter()
    found = trainer.run_epoch(epoch_order(len(dataset.train), seed=config.seed, epoch=number), number=number)
    train_sec = time.perf_counter() - began
    require_finite(found.loss, what="training loss", config=config)
    validation = score_split(model, dataset.validation) if dataset.validation else None
    if validation is not None:
        require_finite(validation.loss, what="validation loss", config=config)
    return Epoch(
        number=number,
        train=found,
        validation=validation,
        train_sec=train_sec,
        images_per_sec=len(dataset.train) / train_sec,
        ended_ms=time.time_ns() // 1_000_000,
    )


def require_finite(loss: float, *, what: str, config: TrainConfig) -> None:
    """Raise LossNotFiniteError if a loss is infinite or NaN."""
    if not math.isfinite(loss):
        raise LossNotFiniteError(f"the {what} became {loss}: lower train.learning_rate={config.learning_rate:g}")


def epoch_order(num_images: int, *, seed: int, epoch: int) -> npt.NDArray[np.int32]:
    """Return the order int32 (num_images,) of an epoch's images: a pure function of the seed and the epoch's number."""
    return np.random.default_rng((seed, epoch)).permutation(num_images).astype(np.int32)


def score_split(model: keras.Model, split: Split) -> Score:
    """Return the loss and accuracy of `model` over all images of `split`, dropout off."""
    return score(predict_logits(model, split.images), split.labels)
