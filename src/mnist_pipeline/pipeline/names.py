"""The names and descriptions of runs."""

from typing import TYPE_CHECKING, Any

from mnist_pipeline.config import compose, functions
from mnist_pipeline.config.sections import Config, DataConfig
from mnist_pipeline.data.dataset import Dataset
from mnist_pipeline.system.text import markdown

if TYPE_CHECKING:
    from mnist_pipeline.model.score import Score

_LETTERS = {"hidden_width": "w", "hidden_widths": "w", "dropout_rate": "d", "batch_size": "b"}
"""The short names of keys that are older than the rule in `_shorten`, or clearer."""

_ENDS = {"train.num_epochs": "e", "train.seed": "s"}
_SILENT = ("model.name", "train.num_threads", "train.checkpoint_every", *_ENDS)
MAX_DIFFERENCES = 5


def name_run(config: Config) -> str:
    """Return a run's name: data, model, the values that differ from the defaults, epochs and seed."""
    return "-".join([config.data.name, config.model.name, name_settings(config)])


def name_settings(config: Config) -> str:
    """Return the part of a run's name behind data and model."""
    differences = list_differences(config)
    parts = [_shorten(key, value) for key, value in differences[:MAX_DIFFERENCES]]
    if len(differences) > MAX_DIFFERENCES:
        parts.append(f"+{len(differences) - MAX_DIFFERENCES}")
    flat = config.flat()
    parts += [f"{letter}{flat[key]}" for key, letter in _ENDS.items()]
    if config.data.validation_size == 0:
        parts.append("all")  # images that are not for the test
    elif config.data.split_seed != compose.read_defaults("data", config.data.option).get(
        "data.split_seed", DataConfig.split_seed
    ):
        parts.append(f"split{config.data.split_seed}")
    return "-".join(parts)


def list_differences(config: Config) -> list[tuple[str, Any]]:
    """Return the keys of the model and of the training whose values differ from the defaults, and the values."""
    defaults = _read_defaults(config)
    return [
        (key, value)
        for key, value in config.flat().items()
        if key.startswith(("model.", "train.")) and key not in _SILENT and _plain(defaults.get(key)) != _plain(value)
    ]


def _read_defaults(config: Config) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for key, component in config.components().items():
        function = functions.read(component.target, key=key, supplied=component.supplied)
        defaults |= {f"{key}.{name}": value for name, value in function.defaults.items()}
        defaults |= compose.read_defaults(key.replace(".", "/"), component.name)
    train = compose.read_defaults("train", "default")
    for key in ("augment", "early_stopping"):
        defaults |= {f"train.{key}.{name}": value for name, value in train[f"train.{key}"].items()}
    return {**defaults, **train, "train.optimizer": "adam", "train.schedule": "constant"}


def _plain(value: Any) -> Any:
    """Return a value as YAML has it, so that two spellings of one number are the same."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    try:
        return float(value) if not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value


def _shorten(key: str, value: Any) -> str:
    name = key.rpartition(".")[2]
    if isinstance(value, str) and "_" not in name.strip("_"):
        return value  # an option or a word, such as sgd or cosine
    words = name.split("_")
    letters = _LETTERS.get(name) or (name if len(words) == 1 else "".join(word[:1] for word in words))
    return f"{letters}{_show(value)}"


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_run(config: Config, dataset: Dataset, *, score: "Score | None" = None) -> str:
    """Return the description that MLflow shows of a run, in Markdown; `score` is that of the test split."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    result = f" **Test accuracy {score.accuracy:.4f}**, loss {score.loss:.4f}." if score else ""
    return f"**{dataset.name}** ({sizes}); {describe_training(config)}.{result}"


def describe_training(config: Config) -> str:
    """Return in words which model is trained, and how."""
    model = ", ".join(f"{key} {_show_argument(value)}" for key, value in config.model.arguments.items())
    train = config.train
    parts = [
        f"`{config.model.name}`" + (f" ({markdown(model)})" if model else ""),
        f"{train.optimizer.name} {train.learning_rate:g}",
        f"batches of {train.batch_size}",
        f"{train.num_epochs} epochs",
        f"seed {train.seed}",
    ]
    others = [
        f"{key.removeprefix('train.')} {_show_argument(value)}"
        for key, value in list_differences(config)
        if key.startswith("train.") and key not in ("train.optimizer", "train.learning_rate", "train.batch_size")
    ]
    return ", ".join([*parts, *map(markdown, others)])


def _show_argument(value: Any) -> str:
    return ", ".join(map(_show, value)) if isinstance(value, list | tuple) else _show(value)
