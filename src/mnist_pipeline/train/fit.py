"""The training loop: epochs, validation, checkpoints."""

import math
import time
from collections.abc import Callable

import keras
import numpy as np
import numpy.typing as npt

from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data.dataset import Dataset, Split
from mnist_pipeline.model.prediction import predict_logits
from mnist_pipeline.model.score import Score, score
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.train.epochs import Epoch, History, TrainState
from mnist_pipeline.train.trainer import Trainer


class LossNotFiniteError(UserError):
    """Training diverged."""


def fit(
    model: keras.Model,
    dataset: Dataset,
    config: TrainConfig,
    *,
    start: TrainState | None = None,
    checkpoint: Callable[[TrainState], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train `model` in place, by Adam on the sparse categorical cross-entropy of its logits.

    Args:
        model: Any Keras classifier from uint8 images to float32 logits `(n, num_classes)`.
        dataset: Trained on `dataset.train`; `dataset.validation`, where there is one, is scored after every epoch.
        config: Epochs, batch size, learning rate, seed and how often to checkpoint.
        start: The state to resume from; the result is bit for bit that of an uninterrupted training.
        checkpoint: Called with the state after every `checkpoint_every` epochs and after the last, before `on_epoch`.
        on_epoch: Called after every epoch; if it raises, the training ends.

    Returns:
        Every epoch, in order.

    Raises:
        LossNotFiniteError: The training or the validation loss became infinite or NaN.
    """
    trainer = Trainer(model, dataset.train, config)
    history: History = []
    if start is not None:
        trainer.restore(start.arrays)
        history += start.history
    for number in range(len(history) + 1, config.num_epochs + 1):
        began = time.perf_counter()
        found = trainer.run_epoch(epoch_order(len(dataset.train), seed=config.seed, epoch=number))
        train_sec = time.perf_counter() - began
        require_finite(found.loss, what="training loss", config=config)
        validation = score_split(model, dataset.validation) if dataset.validation else None
        if validation is not None:
            require_finite(validation.loss, what="validation loss", config=config)
        epoch = Epoch(
            number=number,
            train=found,
            validation=validation,
            train_sec=train_sec,
            images_per_sec=len(dataset.train) / train_sec,
            ended_ms=time.time_ns() // 1_000_000,
        )
        history.append(epoch)
        if checkpoint is not None and (number % config.checkpoint_every == 0 or number == config.num_epochs):
            checkpoint(TrainState(history=tuple(history), arrays=trainer.arrays()))
        if on_epoch is not None:
            on_epoch(epoch)
    return history


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
