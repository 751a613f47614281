"""The names and descriptions of runs."""

from typing import TYPE_CHECKING, Any

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import Config, DataConfig
from mnist_pipeline.data.dataset import Dataset

if TYPE_CHECKING:
    from mnist_pipeline.model.score import Score

_ALWAYS_NAMED = {"model.hidden_width": "w", "model.dropout_rate": "d", "train.num_epochs": "e", "train.seed": "s"}
_NAMED_IF_UNUSUAL = {"train.learning_rate": "lr", "train.batch_size": "b"}


def name_run(config: Config) -> str:
    """Return a run's name: the data, the keys that are swept most often, and those that differ from `conf/`."""
    values = config.flat()
    defaults = compose.read_defaults("train", "default")
    parts = [f"{letter}{_show(values[key])}" for key, letter in _ALWAYS_NAMED.items() if key in values]
    parts += [
        f"{letters}{_show(values[key])}"
        for key, letters in _NAMED_IF_UNUSUAL.items()
        if key in values and values[key] != defaults.get(key)
    ]
    if config.data.validation_size == 0:
        parts.append("all")  # images that are not for the test
    elif config.data.split_seed != compose.read_defaults("data", config.data.option).get(
        "data.split_seed", DataConfig.split_seed
    ):
        parts.append(f"split{config.data.split_seed}")
    return "-".join([config.data.name, *parts])


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_run(config: Config, dataset: Dataset, *, score: "Score | None" = None) -> str:
    """Return the description that MLflow shows of a run, in Markdown; `score` is that of the test split."""
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    result = f" **Test accuracy {score.accuracy:.4f}**, loss {score.loss:.4f}." if score else ""
    return f"**{dataset.name}** ({sizes}); {describe_training(config)}.{result}"


def describe_training(config: Config) -> str:
    """Return in words which model is trained, and how."""
    return (
        f"one hidden layer of {config.model.hidden_width} units, dropout {config.model.dropout_rate:g}; Adam "
        f"{config.train.learning_rate:g}, batches of {config.train.batch_size}, {config.train.num_epochs} epochs, "
        f"seed {config.train.seed}"
    )
