"""Classify photographs of MNIST's test images with the champion; print which shares are right, wrong and refused."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.photos import KINDS, draw
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data.pictures import BadImageError
from mnist_pipeline.serving import champion
from mnist_pipeline.serving.predict import read_image
from mnist_pipeline.tracking.mlflow_store import MlflowStore

NUM_IMAGES = 2000

loaded = champion.load(MlflowStore(TrackingConfig(uri=None, experiment="mnist")), "mnist-classifier")
with np.load(Path(os.environ["MNIST_PIPELINE_DATA_DIR"]) / "mnist.npz") as arrays:
    images, labels = arrays["x_test"][:NUM_IMAGES], arrays["y_test"][:NUM_IMAGES]
for number, kind in enumerate(KINDS):
    read: list[npt.NDArray[np.uint8]] = []
    expected = []
    for index, image in enumerate(images):
        photo = draw(image, kind, np.random.default_rng([index, number]), images[(index + 7) % NUM_IMAGES])
        try:
            read.append(read_image(photo, loaded))
        except BadImageError:
            continue
        expected.append(labels[index])
    num_right = int((loaded.predict(np.stack(read)).argmax(axis=1) == expected).sum()) if read else 0
    shares = (num_right, len(read) - num_right, NUM_IMAGES - len(read))
    print(kind, *(f"{share / NUM_IMAGES:.3f}" for share in shares), flush=True)
