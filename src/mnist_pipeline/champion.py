"""The champion in use: the model that the alias names, loaded once, and quick to ask."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from mlflow.models import Model

from mnist_pipeline.errors import UserError
from mnist_pipeline.mlflow_store import MlflowStore
from mnist_pipeline.patience import patiently
from mnist_pipeline.reasons import is_locked
from mnist_pipeline.registry import candidates, evidence, gates
from mnist_pipeline.registry.versions import CHAMPION, RegisteredModel
from mnist_pipeline.tracking import Predict

if TYPE_CHECKING:
    import keras

CHUNK = 1024


@dataclass(frozen=True)
class Champion:
    """The champion of a registered model.

    Attributes:
        predict: uint8 (n, height, width) to float32 (n, num_classes).
        image_shape: Height and width.
        example: A request to the scoring server that the model was logged with, as JSON.
    """

    name: str
    version: int
    predict: Predict
    metadata: Model
    image_shape: tuple[int, int]
    class_names: tuple[str, ...]
    example: str = field(repr=False)


def load(store: MlflowStore, name: str) -> Champion:
    """Load the champion of the registered model `name`.

    Raises:
        UserError: There is none, its files cannot be read, or it is no model of images.
    """
    model = RegisteredModel(store, name)
    version = model.named(CHAMPION)
    if version is None:
        data_name = name.removesuffix("-classifier")
        raise UserError(f"{name} has no champion: promote a run first (mnist-pipeline promote data={data_name})")
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        try:
            download = mlflow.artifacts.download_artifacts
            folder = patiently("the tracking store", download, f"models:/{name}/{version}", dst_path=scratch)
            loaded = mlflow.pyfunc.load_model(folder)
            example = (Path(folder) / "serving_input_example.json").read_text()
        except Exception as error:  # a damaged file makes the loaders raise anything
            if is_locked(error):
                raise
            raise UserError(
                f"version {version} of {name} cannot be loaded ({' '.join(str(error).split())[:200]}): roll back to "
                "another (mnist-pipeline rollback)"
            ) from error
    network: keras.Model = loaded.get_raw_model()
    _, *image_shape = network.input_shape
    num_classes = network.output_shape[-1]
    signature = evidence.describe_schema(loaded.metadata)
    gate = gates.signature(signature, image_shape=image_shape, num_classes=num_classes)
    if len(image_shape) != 2 or not gate.is_passed:
        raise UserError(f"version {version} of {name} maps {signature}: expected raw images uint8 (n, height, width)")
    height, width = image_shape
    return Champion(
        name=name,
        version=version,
        predict=_compile(network, (height, width)),
        metadata=loaded.metadata,
        image_shape=(height, width),
        class_names=_class_names(store, model, version, num_classes),
        example=example,
    )


def _compile(network: "keras.Model", image_shape: tuple[int, int]) -> Predict:
    """Return the model as one compiled call, for any number of images: Keras's own `predict` takes 30 ms for one."""
    call = tf.function(
        lambda images: network(images, training=False), input_signature=[tf.TensorSpec((None, *image_shape), tf.uint8)]
    )
    # Traced now, not at the first request. A tf.function itself keeps a lock where its arguments do not bind.
    concrete = call.get_concrete_function()

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        starts = range(0, len(images), CHUNK)
        return np.concatenate([concrete(tf.constant(images[start : start + CHUNK])).numpy() for start in starts])

    return predict


def _class_names(store: MlflowStore, model: RegisteredModel, version: int, num_classes: int) -> tuple[str, ...]:
    """Return the names that the version's run knew its classes by; where that is gone, their numbers."""
    try:
        predictions = evidence.read_predictions(candidates.find_run(store, model.run_of(version)))
    except UserError:
        predictions = None
    names = () if predictions is None else tuple(gates.class_names(predictions))
    return names if len(names) == num_classes else tuple(map(str, range(num_classes)))
