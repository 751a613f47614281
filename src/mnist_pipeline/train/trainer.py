"""The compiled trainer: an epoch is one call of TensorFlow over data in memory."""

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_pipeline.config import functions
from mnist_pipeline.config.sections import Component, TrainConfig
from mnist_pipeline.data.dataset import Split
from mnist_pipeline.model.layers import has_only_small_layers
from mnist_pipeline.model.score import Score
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.train.augmentation import augment
from mnist_pipeline.train.dropout import can_be_cheap, cheap_dropout
from mnist_pipeline.train.objective import make_objective
from mnist_pipeline.train.optimizers import Optimizer, start
from mnist_pipeline.train.tensorflow_internals import single_threaded_executor

LEAST_WORK = 5_000_000_000
"""The product of images and parameters from which on XLA saves a tenth of a second an epoch."""


class Trainer:
    """A model, its optimiser and its training images, with a compiled epoch over them.

    Raises:
        ConfigError: The optimiser or the schedule refuses its settings, or is none.
    """

    def __init__(self, model: keras.Model, split: Split, config: TrainConfig) -> None:
        self._model = model
        self._config = config
        self._variables = [variable.value for variable in model.trainable_variables]
        self._optimizer: Optimizer = start(
            _call(config.optimizer, "train.optimizer"), model.trainable_variables, name=config.optimizer.name
        )
        self._steps_per_epoch = math.ceil(len(split) / config.batch_size)
        self._learning_rates = _list_learning_rates(config, self._steps_per_epoch)
        self._objective = make_objective(config, split.labels, num_classes=model.output_shape[-1])
        self._images = tf.constant(split.images)
        self._labels = tf.constant(split.labels)
        self._batch_size = config.batch_size
        # Small steps are not worth distributing: an executor without queues takes 6 % less time. For convolutions the
        # usual one is three times faster. The bits are the same.
        self._is_small = has_only_small_layers(model)
        self._uses_xla = _pays_off(model, config, num_images=len(split))
        # AutoGraph would parse and rewrite the source for nothing: the loop below is already a TensorFlow loop.
        self._compiled_epoch = tf.function(self._epoch, autograph=False, jit_compile=self._uses_xla)

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return a copy of all state that an epoch changes."""
        return tuple(np.array(variable.numpy()) for variable in self._state())

    def restore(self, arrays: tuple[npt.NDArray[np.generic], ...]) -> None:
        """Restore the state that `arrays` returned."""
        for variable, array in zip(self._state(), arrays, strict=True):
            variable.assign(array)

    def _state(self) -> list[tf.Variable]:
        return [*(variable.value for variable in self._model.variables), *self._optimizer.state]

    def trace(self) -> None:
        """Trace the epoch now, which takes Python half a second; the first epoch does it otherwise."""
        with self._ways():
            self._compiled_epoch.get_concrete_function(
                tf.TensorSpec(self._labels.shape, tf.int32),
                tf.TensorSpec(self._steps_per_epoch, tf.float32),
                tf.TensorSpec((), tf.int64),
            )

    @contextlib.contextmanager
    def _ways(self) -> Iterator[None]:
        """Trace and run the epoch in the ways that pay off."""
        with contextlib.ExitStack() as stack:
            if self._is_small:
                stack.enter_context(single_threaded_executor())
            if self._uses_xla:
                stack.enter_context(cheap_dropout(self._model))
            yield

    def run_epoch(self, order: npt.NDArray[np.int32], *, number: int) -> Score:
        """Train once on the images that `order` int32 (n,) lists, batch by batch, the last partial batch too.

        Args:
            order: Of the images.
            number: Of the epoch, counted from 1.

        Returns:
            The means of the cross-entropy and accuracy over all images, each as of its own step.
        """
        first = (number - 1) * self._steps_per_epoch
        rates = self._learning_rates[first : first + self._steps_per_epoch]
        with self._ways():
            loss_sum, num_correct = self._compiled_epoch(
                tf.constant(order), tf.constant(rates), tf.constant(number, tf.int64)
            )
        return Score(loss=float(loss_sum) / len(order), accuracy=float(num_correct) / len(order))

    def _epoch(self, order: tf.Tensor, rates: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        num_full, num_left = divmod(order.shape[0], self._batch_size)

        def step(index: tf.Tensor, loss_sum: tf.Tensor, num_correct: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Slices of a constant size let TensorFlow infer every shape of the step once, before the loop.
            chosen = tf.slice(order, [index * self._batch_size], [self._batch_size])
            loss, hits = self._step(chosen, rates[index], self._seed(number, index))
            return index + 1, loss_sum + loss, num_correct + hits

        _, loss_sum, num_correct = tf.while_loop(
            lambda index, *_: index < num_full,
            step,
            (tf.constant(0), tf.constant(0.0), tf.constant(0)),
            parallel_iterations=1,
        )
        if num_left:
            loss, hits = self._step(order[-num_left:], rates[num_full], self._seed(number, tf.constant(num_full)))
            loss_sum, num_correct = loss_sum + loss, num_correct + hits
        return loss_sum, num_correct

    def _seed(self, number: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Return the seed int64 (2,) of an epoch's step."""
        return tf.stack([tf.constant(self._config.seed, tf.int64), number * 2**32 + tf.cast(index, tf.int64)])

    def _step(self, chosen: tf.Tensor, learning_rate: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.gather(self._images, chosen), tf.gather(self._labels, chosen)
        if self._config.augment.is_on():
            images = augment(images, self._config.augment, seed)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = self._model(images, training=True)
            loss_sum = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            minimised = loss_sum if self._objective.is_plain() else self._objective.sum_losses(labels, logits)
            minimised = tf.add_n([minimised / chosen.shape[0], *self._model.losses])
        gradients = tape.gradient(minimised, self._variables)
        if self._config.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._config.clip_norm)
        self._optimizer.apply(gradients, learning_rate=learning_rate)
        for variable in self._model.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return loss_sum, tf.math.count_nonzero(hits, dtype=tf.int32)


def _pays_off(model: keras.Model, config: TrainConfig, *, num_images: int) -> bool:
    """Return whether XLA makes up for the half second that it compiles, within a few epochs.

    It depends on nothing but what the fingerprint of a training has: the results of the two ways differ in their bits.
    """
    return (
        num_images * model.count_params() >= LEAST_WORK
        and has_only_small_layers(model)
        and can_be_cheap(model)
        and config.num_threads == 1  # with more, XLA may add in another order each time
        and functions.is_ours(config.optimizer.target)
        and not config.augment.is_on()  # XLA cannot move images
    )


def _call(component: Component, key: str, **supplied: object) -> object:
    """Call the function of an option with its arguments, and with those of `supplied` that it takes."""
    function = functions.load(component.target, key=f"{key}.{functions.TARGET}")
    try:
        return function(**component.arguments, **{name: supplied[name] for name in component.supplied})
    except ValueError as error:
        raise ConfigError(f"{key}={component.name}: {error}") from error


def _list_learning_rates(config: TrainConfig, steps_per_epoch: int) -> npt.NDArray[np.float32]:
    """Return the learning rates float32 (num_steps,) of all steps of the training."""
    num_steps = config.num_epochs * steps_per_epoch
    rates = _call(
        config.schedule,
        "train.schedule",
        step=np.arange(num_steps, dtype=np.float64),
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        learning_rate=config.learning_rate,
    )
    found = np.asarray(rates, dtype=np.float32)
    if found.shape != (num_steps,) or not np.isfinite(found).all() or (found < 0).any():
        raise ConfigError(
            f"train.schedule={config.schedule.name}: expected a finite learning rate from 0 for each of the "
            f"{num_steps:,} steps"
        )
    return found
