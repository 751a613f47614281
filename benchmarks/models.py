"""Measurements of the other models: an epoch against Keras's `fit` and PyTorch, and what the convolutions reach."""

import importlib.util
import statistics
from collections.abc import Iterator

from scipy.stats import t as student_t

from benchmarks.measuring import Row, in_turns, python, run

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
        ours, theirs = (
            python("-m", "benchmarks.fit_once", way, "0", FEW_EPOCHS, *overrides) for way in ("compiled", "keras")
        )
        pairs = [tuple(_epoch_sec(child.output) for child in pair) for pair in in_turns(ours, theirs, times=2)]
        ratio = statistics.median(keras / compiled for compiled, keras in pairs)
        compiled, keras = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield Row(
            f"an epoch of {what}, 60,000 images, against Keras `fit` with its defaults",
            f"{ratio:.1f} times faster ({compiled:.1f} s against {keras:.1f} s)",
            bound,
        )
    if importlib.util.find_spec("torch"):
        torch = python("-m", "benchmarks.torch_once")
        pairs = [
            tuple(_epoch_sec(child.output) for child in pair)
            for pair in in_turns(
                python("-m", "benchmarks.fit_once", "compiled", "0", FEW_EPOCHS, "model=conv"), torch, times=2
            )
        ]
        ratio = statistics.median(other / compiled for compiled, other in pairs)
        compiled, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield Row(
            "an epoch of `model=conv`, against the same network in PyTorch, its images in memory",
            f"{ratio:.1f} times faster ({compiled:.1f} s against {other:.1f} s)",
            "reported",
        )


def measure_conv_accuracy() -> Iterator[Row]:
    """Train the convolutions with and without augmentation, over the same seeds."""
    for what, overrides in (("`model=conv`", ()), ("the same with `train.augment`: shift, rotate and zoom", AUGMENTED)):
        commands = [
            python("-m", "benchmarks.fit_once", "compiled", str(seed), *LONG, "model=conv", *overrides)
            for seed in range(NUM_SEEDS)
        ]
        accuracies = [float(run(command).output.split()[1]) for command in commands]
        mean = statistics.mean(accuracies)
        half = float(student_t.ppf(0.975, NUM_SEEDS - 1)) * statistics.stdev(accuracies) / NUM_SEEDS**0.5
        yield Row(
            f"test accuracy of {what}, 6 epochs, cosine schedule, {NUM_SEEDS} seeds, 95 % interval",
            f"{mean:.4f} ± {half:.4f}",
            "0.99",
        )


def _epoch_sec(output: str) -> float:
    return float(output.split()[-1])
