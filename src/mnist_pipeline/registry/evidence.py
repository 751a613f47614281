"""The evidence for a promotion: the run's record, and its model, loaded again."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data import cache, catalogue, dataset
from mnist_pipeline.registry.gates import DIGEST_TAGS, describe_signature
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import integrity, logged_model
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.integrity import Seal
from mnist_pipeline.tracking.logged_model import BadModelError, LoadedModel
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RecordError, RunRecord, Tag

if TYPE_CHECKING:
    from mlflow.models import Model

_NEEDED_TAGS = (Tag.FINGERPRINT, *DIGEST_TAGS, Tag.RESULT_DIGEST)
_BATCH = 1024


@dataclass(frozen=True)
class Reloaded:
    """A logged model, loaded as a caller would load it.

    Attributes:
        signature: As `gates.describe_signature` writes it.
        num_bytes: Of its files.
        probabilities: float32 (n, num_classes), of the images of the test split.
    """

    signature: str
    num_bytes: int
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """The evidence of a run whose files are complete and unchanged.

    Attributes:
        predictions: One row per image of the test split, as logged.
        test: The test split that the run was scored on.
    """

    predictions: pd.DataFrame
    test: dataset.Split
    reloaded: Reloaded


def examine(
    store: MlflowStore, run: RunRecord, folder: ArtifactFolder, data: DataConfig
) -> tuple[tuple[str, ...], Evidence | None]:
    """Check the run's files, load its model from `folder`, and predict the test split again.

    Returns:
        The problems, and the evidence; None if there are problems.

    Raises:
        UserError: The files cannot be read now, or the test split is not available here.
    """
    missing = [f"the tag {tag}" for tag in _NEEDED_TAGS if tag not in run.tags]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += integrity.find_damage(store, run.run_id)
    predictions = find_predictions(run)
    if predictions is None and not problems:
        problems.append("its predictions cannot be read")
    if problems or predictions is None:
        return tuple(problems), None
    try:
        loaded = logged_model.load(folder, find_seals(run), target=run.tags.get(Tag.MODEL_TARGET))
        test = find_test_split(run, data)
        return (), Evidence(predictions, test, _reload(loaded, test.images))
    except BadModelError as error:
        return (str(error),), None


def find_seals(run: RunRecord) -> Mapping[str, Seal] | None:
    """Return the files of the run's model as it logged them; None if that is not known.

    Raises:
        UserError: The list cannot be read now.
    """
    seals, _ = integrity.read_list(run.read_bytes, run.tags)
    return None if seals is None else seals.model


def find_predictions(run: RunRecord) -> pd.DataFrame | None:
    """Return the run's predictions, one row per test image; None where they are missing or damaged.

    Raises:
        UserError: They cannot be read now.
    """
    try:
        return run.read_predictions()
    except RecordError:
        return None


def _reload(loaded: LoadedModel, images: npt.NDArray[np.uint8]) -> Reloaded:
    signature = describe_schema(loaded.metadata)
    try:
        probabilities = loaded.network.predict(images, batch_size=_BATCH, verbose=0)
    except ValueError as error:
        raise BadModelError(f"it does not take images of shape {images.shape[1:]}") from error
    return Reloaded(signature, loaded.num_bytes, np.asarray(probabilities))


def find_test_split(run: RunRecord, data: DataConfig) -> dataset.Split:
    """Return the test split that a run was scored on.

    It is searched for in this machine's own places: among the data that was decoded before, by the run's digest, and
    then where the command says. The run's record of where its data came from is not followed: whoever can write to the
    store could use it to send requests anywhere.

    Args:
        run: The run.
        data: The data set that the command names.

    Raises:
        UserError: The data is not available here, or it is other data.
    """
    name, digest = run.params.get("data.name", ""), run.tags.get(Tag.TEST_DIGEST, "")
    cached = cache.find_by_digest(run.tags.get(Tag.DATA_DIGEST, ""), name=name)
    if cached is not None and cached.test.digest == digest:
        return cached.test
    option = run.tags.get(Tag.DATA_OPTION, name)
    if (data.option, data.name) != (option, name):
        if option != name or not re.fullmatch(r"\w+", name):  # not one of the package's own data sets
            raise UserError(
                f"the data of run {run.run_id} ({name!r}) is not among those decoded here: name it as train did, with "
                f"data={option} and its keys"
            )
        data = compose.compose([f"data={name}"]).data
    test = catalogue.find(data).test
    if test.digest != digest:
        raise UserError(
            f"the test split found here ({test.digest[:12]}) is not the run's ({digest[:12]}): set "
            "MNIST_PIPELINE_DATA_DIR to the folder of the run's data, or give data= and data.path= as train did"
        )
    return test


def describe_schema(metadata: "Model") -> str:
    """Return the signature of a logged model as `gates.describe_signature` writes it.

    Raises:
        AttributeError: It has none.
    """
    return describe_signature(_specs(metadata.signature.inputs), _specs(metadata.signature.outputs))


def _specs(schema: Iterable[object]) -> list[tuple[str, Sequence[int]]]:
    return [(str(spec.type), spec.shape) for spec in schema]  # type: ignore[attr-defined]
