"""Measurements of the other models: an epoch against Keras's `fit` and PyTorch, and what the convolutions reach."""

import importlib.util
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.measuring import Row, describe_speed, in_turns, python, run
from mnist_pipeline.stats import find_interval

NUM_SEEDS = 5
FEW_EPOCHS = "train.num_epochs=2"
"""The first, which traces, is not counted."""
AUGMENTED = ("train.augment.shift=0.1", "train.augment.rotate=10", "train.augment.zoom=0.1")
LONG = ("train.num_epochs=6", "train.schedule=cosine", "data.validation_size=0")


def measure_models() -> Iterator[Row]:
    """Compare an epoch of the other models with Keras's fit, and with PyTorch where it is installed."""
    for what, overrides, bound in (
        ("`model=conv`", ("model=conv",), "at least 1.5 times"),
        ("`model=mlp model.hidden_widths=[128,64]`", ("model=mlp", "model.hidden_widths=[128,64]"), "at least 5 times"),
    ):
        yield Row(
            f"an epoch of {what}, 60,000 images, against Keras `fit` with its defaults",
            _compare_epochs(overrides, python("-m", "benchmarks.fit_once", "keras", "0", FEW_EPOCHS, *overrides)),
            bound,
        )
    if importlib.util.find_spec("torch"):
        yield Row(
            "an epoch of `model=conv`, against the same network in PyTorch, its images in memory",
            _compare_epochs(("model=conv",), python("-m", "benchmarks.torch_once")),
            "reported",
        )


def _compare_epochs(overrides: Sequence[str], other: list[str]) -> str:
    """Return how much faster our epoch is than that of another program, which prints its seconds last."""
    ours = python("-m", "benchmarks.fit_once", "compiled", "0", FEW_EPOCHS, *overrides)
    pairs = in_turns(ours, other, times=2)
    return describe_speed([(float(one.output.split()[-1]), float(two.output.split()[-1])) for one, two in pairs])


def measure_conv_accuracy() -> Iterator[Row]:
    """Train the convolutions with and without augmentation, over the same seeds."""
    for what, overrides in (("`model=conv`", ()), ("the same with `train.augment`: shift, rotate and zoom", AUGMENTED)):
        commands = [
            python("-m", "benchmarks.fit_once", "compiled", str(seed), *LONG, "model=conv", *overrides)
            for seed in range(NUM_SEEDS)
        ]
        accuracies = [float(run(command).output.split()[1]) for command in commands]
        mean, _, high = find_interval(np.array(accuracies), alpha=0.05)
        yield Row(
            f"test accuracy of {what}, 6 epochs, cosine schedule, {NUM_SEEDS} seeds, 95 % interval",
            f"{mean:.4f} ± {high - mean:.4f}",
            "0.99",
        )
