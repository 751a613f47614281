"""`train.early_stopping`: when a training ends, and which epoch is kept. Pure functions of the epochs' values."""

from collections.abc import Sequence

from mnist_pipeline.config.sections import EarlyStoppingConfig, TrainConfig


def is_complete(values: Sequence[float], config: TrainConfig) -> bool:
    """Return whether training ends after these epochs.

    Args:
        values: Of the watched metric, one per epoch; any numbers where early stopping is off.
        config: How many epochs there may be, and when to stop early.
    """
    return len(values) >= config.num_epochs or is_over(values, config.early_stopping)


def find_best(values: Sequence[float], config: EarlyStoppingConfig) -> int:
    """Return the number of the best epoch, counted from 1: the last that was better than all before by `min_delta`.

    Args:
        values: Of the watched metric, one per epoch.
        config: Which values are better.
    """
    sign = -1 if config.metric.is_loss else 1
    best = 1
    for number, value in enumerate(values, start=1):
        if sign * (value - values[best - 1]) > config.min_delta:
            best = number
    return best


def is_over(values: Sequence[float], config: EarlyStoppingConfig) -> bool:
    """Return whether training ends after these epochs: the best of them is `patience` epochs old."""
    return bool(values) and config.patience is not None and len(values) - find_best(values, config) >= config.patience


def find_kept(values: Sequence[float], config: EarlyStoppingConfig) -> int:
    """Return the number of the epoch whose weights the model has at the end."""
    return find_best(values, config) if config.patience is not None and config.restore_best else len(values)
