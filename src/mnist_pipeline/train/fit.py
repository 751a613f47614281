"""The train stage: a whole epoch is one compiled call over data in memory."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.eager.context import function_executor_type

from mnist_pipeline.config.sections import TrainConfig
from mnist_pipeline.data.dataset import Dataset, Split
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.model.dense import Score, predict_logits, score

BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-7
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
"""What is raised where there is too little memory."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Attributes:
        number: Counted from 1.
        train: Means over the epoch's steps, each weighted by its images; dropout on, weights moving.
        validation: At the end of the epoch, dropout off; None without a validation split.
        train_sec: Seconds spent in the compiled epoch.
        images_per_sec: Training images a second in it.
        ended_ms: When it ended, in milliseconds of Unix time: the time stamp of its metric points.
    """

    number: int
    train: Score
    validation: Score | None
    train_sec: float
    images_per_sec: float
    ended_ms: int

    def metrics(self) -> dict[str, float]:
        """Return the figures under the names that MLflow knows them by."""
        named = {"train": self.train, "validation": self.validation}
        scores = {
            f"{split}/{metric}": getattr(found, metric)
            for split, found in named.items()
            if found is not None
            for metric in ("loss", "accuracy")
        }
        return {**scores, "time/epoch_sec": self.train_sec}


History = list[Epoch]


@dataclass(frozen=True)
class TrainState:
    """All that training goes on from after an epoch; the rest follows from the configuration and the data.

    Attributes:
        history: Every epoch so far.
        arrays: The values of the model's variables, dropout's generator among them, then those of the optimiser's.
    """

    history: tuple[Epoch, ...]
    arrays: tuple[npt.NDArray[np.generic], ...]


class LossNotFiniteError(UserError):
    """Training diverged."""


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Report in one line that there is too little memory.

    Raises:
        UserError: There is.
    """
    try:
        yield
    except OUT_OF_MEMORY as error:
        raise UserError(
            f"{describe_shortage(error)}; free some and run the same command again, which resumes"
        ) from error


def describe_shortage(error: Exception) -> str:
    """Return in a few words what there was too little memory for."""
    return f"not enough memory ({' '.join(str(error).split())[:200]})"


def set_num_threads(num_threads: int) -> None:
    """Give TensorFlow its number of threads, before it starts, and keep its results the same with any of them.

    Raises:
        UserError: TensorFlow has already started in this process with another number.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)
        if num_threads > 1:  # one thread is deterministic by itself, and a tenth faster without the guarantee
            tf.config.experimental.enable_op_determinism()
    except RuntimeError as error:
        raise UserError(
            f"train.num_threads={num_threads}: TensorFlow already runs with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()} in this process; use one command a number"
        ) from error


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
        start: The state to go on from; the result is, bit for bit, that of a training that was never interrupted.
        checkpoint: Called with the state after every `checkpoint_every` epochs and after the last, before `on_epoch`.
        on_epoch: Called after every epoch; what it raises ends the training.

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
    """Raise LossNotFiniteError where a loss is infinite or NaN."""
    if not math.isfinite(loss):
        raise LossNotFiniteError(f"the {what} became {loss}: lower train.learning_rate={config.learning_rate:g}")


def epoch_order(num_images: int, *, seed: int, epoch: int) -> npt.NDArray[np.int32]:
    """Return the order int32 (num_images,) of an epoch's images: a pure function of the seed and the epoch's number."""
    return np.random.default_rng((seed, epoch)).permutation(num_images).astype(np.int32)


def score_split(model: keras.Model, split: Split) -> Score:
    """Return the loss and accuracy of `model` over all images of `split`, dropout off."""
    return score(predict_logits(model, split.images), split.labels)


class Adam:
    """Adam (Kingma and Ba, 2015, arXiv:1412.6980) through TensorFlow's fused kernel.

    Keras's own optimiser runs a dozen small operations a variable. One kernel a variable, with the same update, takes
    a quarter off an epoch of the baseline.
    """

    def __init__(self, variables: list[tf.Variable], *, learning_rate: float) -> None:
        self._variables = variables
        self._learning_rate = learning_rate
        self._first_moments = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._second_moments = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._num_steps = tf.Variable(0, dtype=tf.int64)
        self.state = [*self._first_moments, *self._second_moments, self._num_steps]

    def apply(self, gradients: list[tf.Tensor | None]) -> None:
        """Take one step."""
        step = tf.cast(self._num_steps.assign_add(1), tf.float32)
        beta_1_power, beta_2_power = tf.pow(BETA_1, step), tf.pow(BETA_2, step)
        for variable, first, second, gradient in zip(
            self._variables, self._first_moments, self._second_moments, gradients, strict=True
        ):
            if gradient is None:  # the loss does not depend on it
                continue
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=self._learning_rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=gradient,
            )


class Trainer:
    """A model, its optimiser and its training images, with an epoch compiled over them."""

    def __init__(self, model: keras.Model, split: Split, config: TrainConfig) -> None:
        self._model = model
        self._variables = [variable.value for variable in model.trainable_variables]
        self._optimizer = Adam(self._variables, learning_rate=config.learning_rate)
        self._images = tf.constant(split.images)
        self._labels = tf.constant(split.labels)
        self._batch_size = config.batch_size
        # AutoGraph would parse and rewrite the source for nothing: the loop below is already TensorFlow's.
        self._compiled_epoch = tf.function(self._epoch, autograph=False)

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return a copy of everything that an epoch changes."""
        return tuple(np.array(variable.numpy()) for variable in self._state())

    def restore(self, arrays: tuple[npt.NDArray[np.generic], ...]) -> None:
        """Put back what `arrays` returned."""
        for variable, array in zip(self._state(), arrays, strict=True):
            variable.assign(array)

    def _state(self) -> list[tf.Variable]:
        return [*(variable.value for variable in self._model.variables), *self._optimizer.state]

    def run_epoch(self, order: npt.NDArray[np.int32]) -> Score:
        """Train once on the images that `order` int32 (n,) lists, batch by batch, the last partial batch too.

        Returns:
            The means over all images of the losses and hits, as they were when each image had its turn.
        """
        # The steps are too small to be shared out: an executor without queues and hand-overs takes 6 % less time.
        with function_executor_type("SINGLE_THREADED_EXECUTOR"):
            loss_sum, num_correct = self._compiled_epoch(tf.constant(order))
        return Score(loss=float(loss_sum) / len(order), accuracy=float(num_correct) / len(order))

    def _epoch(self, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        num_full, num_left = divmod(order.shape[0], self._batch_size)

        def step(index: tf.Tensor, loss_sum: tf.Tensor, num_correct: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Slices of a constant size let TensorFlow work out every shape of the step once, ahead of the loop.
            loss, hits = self._step(tf.slice(order, [index * self._batch_size], [self._batch_size]))
            return index + 1, loss_sum + loss, num_correct + hits

        _, loss_sum, num_correct = tf.while_loop(
            lambda index, *_: index < num_full,
            step,
            (tf.constant(0), tf.constant(0.0), tf.constant(0)),
            parallel_iterations=1,
        )
        if num_left:
            loss, hits = self._step(order[-num_left:])
            loss_sum, num_correct = loss_sum + loss, num_correct + hits
        return loss_sum, num_correct

    def _step(self, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.gather(self._images, chosen), tf.gather(self._labels, chosen)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = self._model(images, training=True)
            loss_sum = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            objective = tf.add_n([loss_sum / chosen.shape[0], *self._model.losses])
        self._optimizer.apply(tape.gradient(objective, self._variables))
        for variable in self._model.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return loss_sum, tf.math.count_nonzero(hits, dtype=tf.int32)
