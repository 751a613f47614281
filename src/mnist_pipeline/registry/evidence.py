"""What a run left as evidence: what it logged, and its model, loaded anew."""

import io
import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException

from mnist_pipeline import composing, data, mlflow_runs, quiet
from mnist_pipeline.config import Config
from mnist_pipeline.errors import ConfigError, UserError
from mnist_pipeline.mlflow_store import MlflowStore
from mnist_pipeline.registry.gates import DIGEST_TAGS, class_names, describe_signature
from mnist_pipeline.tracking import PastRun

if TYPE_CHECKING:
    from mlflow.models import Model

_NEEDED_TAGS = ("fingerprint", *DIGEST_TAGS, "result.digest")

_log = logging.getLogger(__name__)


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
    test: data.Split
    reloaded: Reloaded


def examine(store: MlflowStore, run: PastRun, model_uri: str) -> tuple[tuple[str, ...], Evidence | None]:
    """Read what the run logged, load its model, and let it predict the test split again.

    Returns:
        What is missing; and the evidence, None where anything is.

    Raises:
        UserError: The test split cannot be had here.
    """
    missing, config, predictions = _look(store, run)
    if missing:
        # A store that fails for a moment must not become a refusal: it has to answer, and to miss the same again.
        store.client.search_experiments(max_results=1)
        missing, config, predictions = _look(store, run)
    if missing or config is None or predictions is None:
        return missing, None
    test = find_test_split(config, run.tags["data.test_digest"])
    reloaded = reload(model_uri, test.images)
    if reloaded is None:
        return ("a model that can be loaded",), None
    return (), Evidence(predictions=predictions, test=test, reloaded=reloaded)


def _look(store: MlflowStore, run: PastRun) -> tuple[tuple[str, ...], Config | None, pd.DataFrame | None]:
    missing = [f"the tag {tag}" for tag in _NEEDED_TAGS if tag not in run.tags]
    if not mlflow_runs.is_whole(store, run.run_id):
        missing.append("files")
    try:
        config = composing.read_logged(run.read("config/config.yaml").decode())
    except (MlflowException, OSError, UnicodeDecodeError, ConfigError):
        config = None
        missing.append("a configuration that can be read")
    predictions = read_predictions(run)
    if predictions is None:
        missing.append("predictions that can be read")
    return tuple(missing), config, predictions


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


def reload(model_uri: str, images: npt.NDArray[np.uint8]) -> Reloaded | None:
    """Load the model and let it predict; None where its files make no model."""
    with quiet.library_noise():  # only now: TensorFlow takes seconds
        import keras
        import mlflow.pyfunc

    keras.config.disable_interactive_logging()  # Keras would draw bars on stdout
    # A copy, since MLflow writes a note of its own beside what it loads.
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=scratch))
            num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            loaded = mlflow.pyfunc.load_model(str(folder))
            signature = describe_schema(loaded.metadata)
            probabilities = np.asarray(loaded.predict(images))
        except Exception as error:  # a damaged file makes the loaders raise anything; it is a gate's refusal
            _log.warning("the model cannot be loaded: %s", " ".join(str(error).split())[:300])
            return None
    return Reloaded(signature=signature, num_bytes=num_bytes, probabilities=probabilities)


def find_test_split(config: Config, test_digest: str) -> data.Split:
    """Return the test split that a run was scored on.

    Raises:
        UserError: The data cannot be had here, or is other data.
    """
    test = data.find(config.data).test
    if test.digest != test_digest:
        raise UserError(
            f"the test split that is found here ({test.digest[:12]}) is not the run's ({test_digest[:12]}): set "
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
