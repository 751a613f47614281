"""Predict 60,000 images from an NPZ file into a Parquet file; print the images per second after loading."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data.pictures import Invert
from mnist_pipeline.serving import champion, predict
from mnist_pipeline.serving.tables import TableFile
from mnist_pipeline.tracking.mlflow_store import MlflowStore

loaded = champion.load(MlflowStore(TrackingConfig(uri=None, experiment="mnist")), "mnist-classifier")
with (
    np.load(Path(os.environ["MNIST_PIPELINE_DATA_DIR"]) / "mnist.npz") as arrays,
    tempfile.TemporaryDirectory() as name,
):
    path, output = Path(name) / "images.npz", Path(name) / "predictions.parquet"
    np.savez(path, images=arrays["x_train"])
    start = time.perf_counter()
    with TableFile(output) as table:
        result = predict.predict([path], loaded, invert=Invert.auto, output=table, on_bad=lambda name, reason: None)
    print(result.num_images / (time.perf_counter() - start))
