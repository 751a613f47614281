"""What a run left as evidence: what it logged, and its model, loaded anew."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue, dataset
from mnist_pipeline.registry.gates import DIGEST_TAGS, class_names, describe_signature
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import integrity, logged_model
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.integrity import Seal
from mnist_pipeline.tracking.logged_model import BadModelError, LoadedModel
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.tracker import PastRun

if TYPE_CHECKING:
    from mlflow.models import Model

_NEEDED_TAGS = ("fingerprint", *DIGEST_TAGS, "result.digest")
_BATCH = 1024


@dataclass(frozen=True)
class Reloaded:
    """A logged model, loaded as a caller would.

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
    """What a whole run left.

    Attributes:
        predictions: One row an image of the test split, as logged.
        test: The test split that the run was scored on.
    """

    predictions: pd.DataFrame
    test: dataset.Split
    reloaded: Reloaded


def examine(store: MlflowStore, run: PastRun, folder: ArtifactFolder) -> tuple[tuple[str, ...], Evidence | None]:
    """Check the run's files, load its model from `folder`, and let it predict the test split again.

    Returns:
        What is wrong with them; and the evidence, None where anything is.

    Raises:
        UserError: The files cannot be read now, or the test split cannot be had here.
    """
    missing = [f"the tag {tag}" for tag in _NEEDED_TAGS if tag not in run.tags]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += integrity.find_damage(store, run.run_id)
    predictions = read_predictions(run)
    if predictions is None and not problems:
        problems.append("its predictions cannot be read")
    if problems or predictions is None:
        return tuple(problems), None
    try:
        loaded = logged_model.load(folder, find_seals(run))
        test = find_test_split(run)
        return (), Evidence(predictions, test, _reload(loaded, test.images))
    except BadModelError as error:
        return (str(error),), None


def find_seals(run: PastRun) -> Mapping[str, Seal] | None:
    """Return the files of the run's model as it logged them; None where nobody can tell.

    Raises:
        UserError: The list cannot be read now.
    """
    seals, _ = integrity.read_list(run.read, run.tags)
    return None if seals is None else seals.model


def read_predictions(run: PastRun) -> pd.DataFrame | None:
    """Return the run's predictions, one row a test image; None where they cannot be read, or are none."""
    try:
        content = run.read("evaluate/predictions.parquet")
    except (MlflowException, OSError):
        return None
    try:
        table = pd.read_parquet(io.BytesIO(content)).reset_index(drop=True)
        return table if _are_predictions(table) else None
    except Exception:  # what is raised for a damaged table may be anything
        return None


def _are_predictions(table: pd.DataFrame) -> bool:
    """Return whether a table is as `evaluate.Evaluation.predictions` says."""
    names = class_names(table)
    whole = ["index", "label", "predicted"]
    shares = [column for column in table if str(column).startswith("probability_")]
    if table.empty or not names or not set(whole) <= set(table):
        return False
    if not all(isinstance(dtype, np.dtype) for dtype in table[[*whole, *shares]].dtypes):  # pandas has others too
        return False
    if not all(map(pd.api.types.is_integer_dtype, table[whole].dtypes)):
        return False
    if not all(map(pd.api.types.is_float_dtype, table[shares].dtypes)):
        return False
    are_classes = table[["label", "predicted"]].isin(range(len(names))).all(axis=None)
    is_in_order = (table["index"] == np.arange(len(table))).all()
    return bool(are_classes and is_in_order and table.notna().all(axis=None))


def _reload(loaded: LoadedModel, images: npt.NDArray[np.uint8]) -> Reloaded:
    signature = describe_schema(loaded.metadata)
    try:
        probabilities = loaded.network.predict(images, batch_size=_BATCH, verbose=0)
    except ValueError as error:
        raise BadModelError(f"it takes no images {images.shape[1:]}") from error
    return Reloaded(signature, loaded.num_bytes, np.asarray(probabilities))


def find_test_split(run: PastRun) -> dataset.Split:
    """Return the test split that a run was scored on.

    It is looked for where this machine is told to look. The run's own record of where its data came from is not
    followed: whoever can write into the store could send a request anywhere by it.

    Raises:
        UserError: The data cannot be had here, or is other data.
    """
    name, digest = run.params.get("data.name", ""), run.tags.get("data.test_digest", "")
    if not re.fullmatch(r"\w+", name):
        raise UserError(
            f"run {run.run_id} does not say which data it used (data.name={name!r}): its params were edited"
        )
    test = catalogue.find(compose.compose([f"data={name}"]).data).test
    if test.digest != digest:
        raise UserError(
            f"the test split found here ({test.digest[:12]}) is not the run's ({digest[:12]}): set "
            "MNIST_PIPELINE_DATA_DIR to the folder of the run's data"
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
