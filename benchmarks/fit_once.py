"""Train the tutorial's recipe once and print the seconds of the training alone and the test accuracy.

python -m benchmarks.fit_once keras|compiled SEED
"""

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


def fit_compiled(model: keras.Model, dataset: Dataset, composed: Config) -> float:
    """Return the seconds of our training, its tracing included."""
    start = time.perf_counter()
    fit(model, dataset, composed.train)
    return time.perf_counter() - start


def fit_keras(model: keras.Model, dataset: Dataset, composed: Config) -> float:
    """Return the seconds of Keras's `fit` with its defaults, on floats as the tutorial has them."""
    layers = [layer for layer in model.layers if layer.name != "scale"]
    floats = keras.Sequential([keras.Input(dataset.image_shape), *layers])
    images, labels = dataset.train.images / 255.0, dataset.train.labels
    floats.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    keras.utils.set_random_seed(composed.train.seed)
    start = time.perf_counter()
    floats.fit(images, labels, epochs=composed.train.num_epochs, verbose=0)
    return time.perf_counter() - start


def main(way: str, seed: str) -> None:
    """Train and print."""
    composed = compose.compose(["preset=tutorial", f"train.seed={seed}"])
    if way == "compiled":
        start_tensorflow(composed.num_threads)
    dataset = catalogue.load(composed.data)
    model = build(composed.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes, seed=int(seed))
    seconds = {"compiled": fit_compiled, "keras": fit_keras}[way](model, dataset, composed)
    print(seconds, score_split(model, dataset.test).accuracy)


if __name__ == "__main__":
    main(*sys.argv[1:])
