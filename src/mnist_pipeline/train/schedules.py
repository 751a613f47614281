"""`train.schedule`: the learning rate of every step of a training, as a pure function of the step.

Each function's parameters are the keys of its option, beside those that the pipeline supplies: `step`, float64
(num_steps,) counted from 0, `num_steps` of the whole training, `steps_per_epoch`, and `learning_rate`, that of the
configuration. It returns the learning rates, in the shape of `step`. A schedule that takes `num_steps` makes every
step depend on the length of the training.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le

Rates = npt.NDArray[np.float64]
_Share = Annotated[float, Ge(0), Le(1)]


def constant(*, step: Rates, learning_rate: float) -> Rates:
    """Return the same learning rate for every step."""
    return np.full_like(step, learning_rate)


def cosine(
    *,
    step: Rates,
    num_steps: int,
    steps_per_epoch: int,
    learning_rate: float,
    warmup_epochs: Annotated[float, Ge(0)] = 0.0,
    final: _Share = 0.0,
) -> Rates:
    """Fall along half a cosine (Loshchilov and Hutter, 2017, arXiv:1608.03983) to the share `final`."""
    done = _share_done(step, num_steps, warmup=warmup_epochs * steps_per_epoch)
    decayed = learning_rate * (final + (1 - final) * (1 + np.cos(np.pi * done)) / 2)
    return _warm_up(decayed, step, learning_rate, warmup=warmup_epochs * steps_per_epoch)


def linear(
    *,
    step: Rates,
    num_steps: int,
    steps_per_epoch: int,
    learning_rate: float,
    warmup_epochs: Annotated[float, Ge(0)] = 0.0,
    final: _Share = 0.0,
) -> Rates:
    """Fall on a straight line to the share `final`."""
    done = _share_done(step, num_steps, warmup=warmup_epochs * steps_per_epoch)
    decayed = learning_rate * (1 - (1 - final) * done)
    return _warm_up(decayed, step, learning_rate, warmup=warmup_epochs * steps_per_epoch)


def exponential(
    *, step: Rates, steps_per_epoch: int, learning_rate: float, factor: Annotated[float, Gt(0), Le(1)] = 0.9
) -> Rates:
    """Fall by `factor` in each epoch, a little at each step."""
    return learning_rate * factor ** (step / steps_per_epoch)


def stairs(
    *,
    step: Rates,
    steps_per_epoch: int,
    learning_rate: float,
    factor: Annotated[float, Gt(0), Le(1)] = 0.1,
    every: Annotated[int, Ge(1)] = 5,
) -> Rates:
    """Fall by `factor` at once, after each `every` epochs."""
    return learning_rate * factor ** (step // (steps_per_epoch * every))


def _share_done(step: Rates, num_steps: int, *, warmup: float) -> Rates:
    return np.clip((step - warmup) / max(num_steps - warmup, 1), 0, 1)


def _warm_up(decayed: Rates, step: Rates, learning_rate: float, *, warmup: float) -> Rates:
    return np.where(step < warmup, learning_rate * step / warmup if warmup else 0.0, decayed)
