"""The champion: the model that the alias names, loaded once and compiled."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_pipeline.data.pictures import FITS, Fit, Form
from mnist_pipeline.registry import candidates, evidence, gates
from mnist_pipeline.registry.registry import propose_champion
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import logged_model, runs
from mnist_pipeline.tracking.logged_model import BadModelError
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord, Tag, class_names
from mnist_pipeline.tracking.registered_models import CHAMPION, RegisteredModel
from mnist_pipeline.tracking.tracker import Predict

if TYPE_CHECKING:
    import keras
    from mlflow.models import Model

CHUNK = 1024

_DIGITS = ("mnist", "digits")
"""Data sets whose images are centred digits, bright on black: pictures for their models are made so."""


@dataclass(frozen=True)
class Champion:
    """The champion of a registered model.

    Attributes:
        predict: uint8 (n, *image_shape) to float32 (n, num_classes).
        image_shape: Height and width; of images in colour, the number of channels too.
        form: How a picture becomes an image for the model, as for its training.
        example: A request to the scoring server that the model was logged with, as JSON.
    """

    name: str
    version: int
    predict: Predict
    metadata: "Model"
    image_shape: tuple[int, ...]
    form: Form
    class_names: tuple[str, ...]
    example: str = field(repr=False)


def load(store: MlflowStore, name: str) -> Champion:
    """Load the champion of the registered model `name`, after checking its files against the list of its run.

    Raises:
        UserError: There is no champion, its files are not as logged, or it is not a model of images.
    """
    model = RegisteredModel(store, name)
    version = model.named(CHAMPION)
    if version is None:
        raise UserError(f"{name} has no champion: {propose_champion(store)}")
    run = _find_run(store, model, version)
    try:
        loaded = logged_model.load(
            model.model_folder(version),
            evidence.find_seals(run) if run else None,
            target=run.tags.get(Tag.MODEL_TARGET) if run else None,
        )
    except BadModelError as error:
        raise UserError(f"version {version} of {name} is damaged ({error}): {candidates.replace_champion()}") from error
    network = loaded.network
    _, *image_shape = network.input_shape
    num_classes = network.output_shape[-1]
    signature = evidence.describe_schema(loaded.metadata)
    gate = gates.signature(signature, image_shape=image_shape, num_classes=num_classes)
    if len(image_shape) not in (2, 3) or not gate.is_passed:
        raise UserError(f"version {version} of {name} maps {signature}: expected raw images uint8 (n, height, width)")
    return Champion(
        name=name,
        version=version,
        predict=_compile(network, tuple(image_shape)),
        metadata=loaded.metadata,
        image_shape=tuple(image_shape),
        form=choose_form(run, tuple(image_shape)),
        class_names=_class_names(run, num_classes),
        example=loaded.example,
    )


def _compile(network: "keras.Model", image_shape: tuple[int, ...]) -> Predict:
    """Return the model as one compiled call, for any number of images: Keras's own `predict` takes 30 ms for one."""
    call = tf.function(
        lambda images: network(images, training=False), input_signature=[tf.TensorSpec((None, *image_shape), tf.uint8)]
    )
    # Traced now, not at the first request. A tf.function itself would keep a lock after a call with bad arguments.
    concrete = call.get_concrete_function()

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        starts = range(0, len(images), CHUNK)
        return np.concatenate([concrete(tf.constant(images[start : start + CHUNK])).numpy() for start in starts])

    return predict


def _find_run(store: MlflowStore, model: RegisteredModel, version: int) -> RunRecord | None:
    """Return the version's run; None if it is gone or never existed."""
    run_id = model.run_id(version)
    return runs.get(store, run_id) if run_id else None


def choose_form(run: RunRecord | None, image_shape: tuple[int, ...]) -> Form:
    """Return how a picture becomes an image for a model: as the run's data made it, and as MNIST did for digits.

    Args:
        run: The model's run; None if it is gone.
        image_shape: Of the model's images.
    """
    height, width, *channels = image_shape
    tags, params = (run.tags, run.params) if run else ({}, {})
    given = params.get("data.fit", "")
    is_digits = run is None or tags.get(Tag.DATA_OPTION, params.get("data.name")) in _DIGITS
    fit: Fit = FITS[FITS.index(given)] if given in FITS else "digit" if is_digits and not channels else "resize"
    return Form((height, width), "rgb" if channels else "grey", fit)


def _class_names(run: RunRecord | None, num_classes: int) -> tuple[str, ...]:
    """Return the class names that the run logged; if they are gone, the numbers of the classes."""
    predictions = None if run is None else evidence.find_predictions(run)
    names = () if predictions is None else tuple(class_names(predictions))
    return names if len(names) == num_classes else tuple(map(str, range(num_classes)))
