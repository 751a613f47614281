"""What the fork server imports, once for all workers. Nothing waits for it but the first trials."""

import gc

from mnist_pipeline.system.heavy_imports import import_keras

gc.disable()  # what is imported stays: to look for garbage in it takes most of a second
import_keras()

import sklearn.model_selection  # noqa: E402, F401 (each worker would import it to split the data)

from mnist_pipeline.executors import forked, training  # noqa: E402, F401
