"""The command `train`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mnist_pipeline import composing, store
from mnist_pipeline.commands import hydra_app
from mnist_pipeline.commands.importing import heavy_imports
from mnist_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from mnist_pipeline.config import Config


def train(arguments: Sequence[str]) -> None:
    """Run the `train` command: a Hydra app whose every configuration is checked before Hydra starts a job."""
    parsed = hydra_app.parse(arguments)
    if not hydra_app.only_shows(parsed):
        configs = composing.check(parsed.overrides, multirun=parsed.multirun, config_dir=parsed.config_dir)
        if len({checked.train.num_threads for checked in configs}) > 1:
            raise ConfigError("train.num_threads: one number for all runs of a --multirun, since they share a process")
        if not (parsed.cfg or parsed.info):
            for uri in {store.resolve_uri(checked.tracking) for checked in configs}:
                store.begin(uri)
    hydra_app.run(lambda composed: _train_once(composed, config_dir=parsed.config_dir), arguments)


def _train_once(composed: object, *, config_dir: str | None) -> None:
    with heavy_imports():
        from mnist_pipeline import mlflow_tracking, pipeline, request
    from mnist_pipeline import console  # only now: it looks whether stderr is a terminal

    console.show_log()
    assert isinstance(composed, DictConfig)
    given, searched = hydra_app.given_overrides(config_dir)

    def compose(overrides: list[str]) -> "Config":
        return composing.check([*searched, *overrides], config_dir=config_dir)[0]

    asked = request.prepare(composing.from_hydra(composed), given, compose=compose)
    tracker = mlflow_tracking.MlflowTracker(asked.config.tracking)
    with console.EpochProgress(asked.config.train.num_epochs) as progress:
        result = pipeline.run(asked, tracker, on_epoch=progress)
    console.print_result(result)
