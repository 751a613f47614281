"""How a logged model is loaded without executing anything in its files.

MLflow's own loaders import the module that an MLmodel names, and unpickle files beside the network. Here Keras reads
the network's `.keras` file in safe mode, and nothing else is loaded. Layers of the user's own come from the user's own
module, as it is on this machine: it is imported only if it defines the function of a model that the run names.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_pipeline.config import functions
from mnist_pipeline.system import plain_yaml, quiet
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.heavy_imports import import_keras
from mnist_pipeline.tracking import integrity
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.integrity import Seal

if TYPE_CHECKING:
    import keras
    from mlflow.models import Model

NETWORK = "data/model.keras"
EXAMPLE = "serving_input_example.json"
_DESCRIPTION = "MLmodel"
_LOADER = "mlflow.tensorflow"
_FILES = {
    *(_DESCRIPTION, NETWORK, EXAMPLE, "data/keras_module.txt", "data/save_format.txt", "input_example.json"),
    *("conda.yaml", "python_env.yaml", "requirements.txt"),
}


class BadModelError(Exception):
    """The files are not those of a model that this pipeline logged. The message is the reason."""


@dataclass(frozen=True)
class LoadedModel:
    """A logged model.

    Attributes:
        network: From raw uint8 images to float32 probabilities.
        metadata: As MLflow's scoring server expects it.
        example: A request to the scoring server, as JSON.
        num_bytes: Of all its files.
    """

    network: "keras.Model"
    metadata: "Model"
    example: str
    num_bytes: int


def load(folder: ArtifactFolder, seals: Mapping[str, Seal] | None, *, target: str | None = None) -> LoadedModel:
    """Load the model whose files are in `folder`.

    Args:
        folder: Of the logged model.
        seals: Its files as the run logged them; None if the run is gone.
        target: Dotted name of the function of the user's that built it; None: one of this package.

    Raises:
        ConfigError: There is no such function on this machine.
        BadModelError: Files are missing, changed or extra, another loader is named, or Keras cannot read the network.
        UserError: The files cannot be read now, or there is no space or memory for them.
    """
    sizes = {path: size for path, size in folder.sizes().items() if path != integrity.WRITTEN_BY_LOADING}
    _require_files(sizes, seals)
    contents = {path: _read(folder, path, seals) for path in sizes}
    metadata = _read_description(contents[_DESCRIPTION])
    return LoadedModel(
        network=_read_network(contents[NETWORK], target),
        metadata=metadata,
        example=contents[EXAMPLE].decode(errors="replace"),
        num_bytes=sum(sizes.values()),
    )


def _require_files(sizes: Mapping[str, int], seals: Mapping[str, Seal] | None) -> None:
    expected = _FILES if seals is None else seals.keys()
    problems = {"missing": sorted(expected - sizes.keys()), "extra": sorted(sizes.keys() - expected)}
    unknown = sorted(expected - _FILES)
    if unknown:  # a run that was tampered with before it finished
        problems["extra"] += unknown
    if any(problems.values()):
        raise BadModelError("; ".join(integrity.describe(problems)))


def _read(folder: ArtifactFolder, path: str, seals: Mapping[str, Seal] | None) -> bytes:
    try:
        content = folder.read(path)
    except FileNotFoundError as error:
        raise BadModelError(f"missing: {path}") from error
    expected = seals[path] if seals else None
    found = integrity.seal(content)
    if expected and (found.size, expected.sha256 or found.sha256) != (expected.size, found.sha256):
        raise BadModelError(f"changed: {path}")
    return content


def _read_description(content: bytes) -> "Model":
    from mlflow.models import Model  # imported here, because reports read files of models, and load none

    try:
        values = plain_yaml.read(content)
        loader = values["flavors"]["python_function"]
        if loader["loader_module"] != _LOADER or loader.get("code"):
            raise BadModelError(
                f"its MLmodel names the loader {loader['loader_module']}: expected {_LOADER}, without code"
            )
        return Model.from_dict(values)
    except BadModelError:
        raise
    except Exception as error:  # MLflow's parsers may raise anything for unexpected values
        raise BadModelError(f"its MLmodel cannot be read ({' '.join(str(error).split())[:200]})") from error


def _import_layers(target: str) -> None:
    """Import the module of the function `target`, which registers the layers that it defines."""
    function = functions.read(target, key="model._target_", supplied=functions.MODEL_SUPPLIED)
    if not function.supplied:
        raise ConfigError(
            f"model._target_={target}: it does not build a model, as it takes neither image_shape nor seed"
        )
    functions.load(target, key="model._target_")


def _read_network(content: bytes, target: str | None) -> "keras.Model":
    with quiet.library_noise():  # here, because TensorFlow takes seconds to import
        import_keras()
        import keras
        import tensorflow as tf

        from mnist_pipeline.train.runtime import hide_gpus, reset_keras

    hide_gpus()
    reset_keras()
    if target is not None:
        _import_layers(target)
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        path = Path(scratch) / "model.keras"
        try:
            path.write_bytes(content)
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise UserError("the model does not fit into memory: free some, and run the same command again") from error
        except OSError as error:
            if error.errno is None:  # h5py's own, for a damaged file
                raise BadModelError(f"{NETWORK} cannot be read ({_first_words(error)})") from error
            raise UserError(
                f"the model cannot be loaded ({error.strerror}): free some space for temporary files, or set TMPDIR"
            ) from error
        except Exception as error:  # a damaged file makes Keras raise anything
            raise BadModelError(f"{NETWORK} cannot be loaded in safe mode ({_first_words(error)})") from error
    if not isinstance(network, keras.Model):
        raise BadModelError(f"{NETWORK} is a {type(network).__name__}, not a model")
    return network


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
