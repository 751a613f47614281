"""Train once and print: the seconds of the training, the test accuracy, and the seconds of an epoch after the first.

python -m benchmarks.fit_once keras|compiled SEED [KEY=VALUE ...]

The recipe is the tutorial's, with the changes that the overrides make.
"""

import itertools
import statistics
import sys
import time

import keras

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Config
from mnist_pipeline.data import catalogue
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.train.fit import fit, score_split
from mnist_pipeline.train.runtime import start_tensorflow


def fit_compiled(model: keras.Model, dataset: Dataset, composed: Config) -> list[float]:
    """Train as we do; return the time at which each epoch ended, in seconds."""
    ended: list[float] = []
    fit(model, dataset, composed.train, on_epoch=lambda _: ended.append(time.perf_counter()))
    return ended


def fit_keras(model: keras.Model, dataset: Dataset, composed: Config) -> list[float]:
    """Train by Keras's `fit` with its defaults, on floats as the tutorial has them; return as `fit_compiled`."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Rescaling)]
    floats = keras.Sequential([keras.Input(dataset.image_shape), *layers])
    images, labels = dataset.train.images / 255.0, dataset.train.labels
    floats.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    keras.utils.set_random_seed(composed.train.seed)
    ended: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ended.append(time.perf_counter()))
    floats.fit(images, labels, epochs=composed.train.num_epochs, verbose=0, callbacks=[note])
    return ended


def main(way: str, seed: str, *overrides: str) -> None:
    """Train and print."""
    composed = compose.compose(["preset=tutorial", f"train.seed={seed}", *overrides])
    if way == "compiled":
        start_tensorflow(composed.num_threads)
    dataset = catalogue.load(composed.data)
    model = build(composed.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=int(seed))
    start = time.perf_counter()
    ended = {"compiled": fit_compiled, "keras": fit_keras}[way](model, dataset, composed)
    epochs = [after - before for before, after in itertools.pairwise(ended)]
    print(ended[-1] - start, score_split(model, dataset.test).accuracy, statistics.mean(epochs))


if __name__ == "__main__":
    main(*sys.argv[1:])
