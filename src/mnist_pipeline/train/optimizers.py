"""`train.optimizer`: how gradients change the variables.

Each function's parameters are the keys of its option. It returns what makes an optimiser of a list of variables, or an
optimiser of Keras. Where TensorFlow has one fused operation for the update of a variable, that is used: Keras's own
optimisers run a dozen small ones, and a dense network's steps are so small that this costs a quarter of an epoch.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Protocol

import keras
import tensorflow as tf
from annotated_types import Ge, Gt, Lt

from mnist_pipeline.system.errors import ConfigError

Gradients = list[tf.Tensor | None]


class Optimizer(Protocol):
    """Changes variables by their gradients.

    Attributes:
        state: The variables of the optimiser itself.
    """

    state: list[tf.Variable]

    def apply(self, gradients: Gradients, *, learning_rate: tf.Tensor) -> None:
        """Take one step. A gradient is None where the loss does not depend on the variable."""


MakeOptimizer = Callable[[list[keras.Variable]], Optimizer]


def adam(
    *,
    beta_1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta_2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> MakeOptimizer:
    """Adam (Kingma and Ba, 2015, arXiv:1412.6980)."""
    return partial(_Adam, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, weight_decay=0.0)


def adamw(
    *,
    weight_decay: Annotated[float, Ge(0)] = 0.004,
    beta_1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta_2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> MakeOptimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""
    return partial(_Adam, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, weight_decay=weight_decay)


def sgd(*, momentum: Annotated[float, Ge(0), Lt(1)] = 0.9, nesterov: bool = False) -> MakeOptimizer:
    """Stochastic gradient descent with momentum (Polyak, 1964), or Nesterov's (Sutskever et al., 2013)."""
    return partial(_Sgd, momentum=momentum, nesterov=nesterov)


def rmsprop(
    *,
    rho: Annotated[float, Ge(0), Lt(1)] = 0.9,
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> MakeOptimizer:
    """RMSprop (Hinton, 2012, lecture 6e of Neural Networks for Machine Learning)."""
    return partial(_RmsProp, rho=rho, momentum=momentum, epsilon=epsilon)


def nadam(
    *,
    beta_1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta_2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    epsilon: Annotated[float, Gt(0)] = 1e-7,
) -> keras.optimizers.Optimizer:
    """Adam with Nesterov's momentum (Dozat, 2016), as Keras has it."""
    return keras.optimizers.Nadam(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def lion(
    *,
    beta_1: Annotated[float, Gt(0), Lt(1)] = 0.9,
    beta_2: Annotated[float, Ge(0), Lt(1)] = 0.99,
    weight_decay: Annotated[float, Ge(0)] = 0.0,
) -> keras.optimizers.Optimizer:
    """Lion (Chen et al., 2023, arXiv:2302.06675), as Keras has it."""
    return keras.optimizers.Lion(beta_1=beta_1, beta_2=beta_2, weight_decay=weight_decay or None)


def start(made: object, variables: list[keras.Variable], *, name: str) -> Optimizer:
    """Return the optimiser of `variables` that an option's function made.

    Raises:
        ConfigError: The function made something else.
    """
    if isinstance(made, keras.optimizers.Optimizer):
        return _KerasOptimizer(made, variables, name=name)
    if not callable(made):
        raise ConfigError(
            f"train.optimizer={name}: its function returned {type(made).__name__}: expected an optimiser of Keras"
        )
    optimizer: Optimizer = made(variables)
    return optimizer


def _zeros(variables: list[tf.Variable]) -> list[tf.Variable]:
    return [tf.Variable(tf.zeros_like(variable)) for variable in variables]


class _Adam:
    def __init__(
        self, variables: list[keras.Variable], *, beta_1: float, beta_2: float, epsilon: float, weight_decay: float
    ) -> None:
        self._variables = [variable.value for variable in variables]
        self._beta_1, self._beta_2, self._epsilon, self._weight_decay = beta_1, beta_2, epsilon, weight_decay
        self._first_moments, self._second_moments = _zeros(self._variables), _zeros(self._variables)
        self._num_steps = tf.Variable(0, dtype=tf.int64)
        self.state = [*self._first_moments, *self._second_moments, self._num_steps]

    def apply(self, gradients: Gradients, *, learning_rate: tf.Tensor) -> None:
        step = tf.cast(self._num_steps.assign_add(1), tf.float32)
        beta_1_power, beta_2_power = tf.pow(self._beta_1, step), tf.pow(self._beta_2, step)
        for variable, first, second, gradient in zip(
            self._variables, self._first_moments, self._second_moments, gradients, strict=True
        ):
            if self._weight_decay:
                variable.assign_sub(variable * (self._weight_decay * learning_rate))
            if gradient is None:
                continue
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=learning_rate,
                beta1=self._beta_1,
                beta2=self._beta_2,
                epsilon=self._epsilon,
                grad=gradient,
            )


class _Sgd:
    def __init__(self, variables: list[keras.Variable], *, momentum: float, nesterov: bool) -> None:
        self._variables = [variable.value for variable in variables]
        self._momentum, self._nesterov = momentum, nesterov
        self.state = _zeros(self._variables) if momentum else []

    def apply(self, gradients: Gradients, *, learning_rate: tf.Tensor) -> None:
        for index, (variable, gradient) in enumerate(zip(self._variables, gradients, strict=True)):
            if gradient is None:
                continue
            if not self._momentum:
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
                continue
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=self.state[index].handle,
                lr=learning_rate,
                grad=gradient,
                momentum=self._momentum,
                use_nesterov=self._nesterov,
            )


class _RmsProp:
    def __init__(self, variables: list[keras.Variable], *, rho: float, momentum: float, epsilon: float) -> None:
        self._variables = [variable.value for variable in variables]
        self._rho, self._momentum, self._epsilon = rho, momentum, epsilon
        self._mean_squares, self._steps = _zeros(self._variables), _zeros(self._variables)
        self.state = [*self._mean_squares, *self._steps]

    def apply(self, gradients: Gradients, *, learning_rate: tf.Tensor) -> None:
        for variable, mean_square, last, gradient in zip(
            self._variables, self._mean_squares, self._steps, gradients, strict=True
        ):
            if gradient is None:
                continue
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=mean_square.handle,
                mom=last.handle,
                lr=learning_rate,
                rho=self._rho,
                momentum=self._momentum,
                epsilon=self._epsilon,
                grad=gradient,
            )


class _KerasOptimizer:
    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable], *, name: str) -> None:
        try:
            optimizer.learning_rate = 0.0  # train.learning_rate and train.schedule give it
        except TypeError as error:
            raise ConfigError(
                f"train.optimizer={name}: it has a learning rate schedule of its own; choose one with train.schedule="
            ) from error
        optimizer.build(variables)
        self._optimizer, self._variables = optimizer, variables
        self.state = [variable.value for variable in optimizer.variables]

    def apply(self, gradients: Gradients, *, learning_rate: tf.Tensor) -> None:
        known = [
            (gradient, one) for gradient, one in zip(gradients, self._variables, strict=True) if gradient is not None
        ]
        self._optimizer.learning_rate = learning_rate
        self._optimizer.apply([gradient for gradient, _ in known], [one for _, one in known])
