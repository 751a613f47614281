"""The command `train`."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mnist_pipeline.cli import hydra_app
from mnist_pipeline.cli.errors import print_error
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.config import compose, overrides
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.tracking import store

if TYPE_CHECKING:
    from mnist_pipeline.config.sections import Config


def train(arguments: Sequence[str]) -> None:
    """Run the `train` command: a Hydra app whose every configuration is checked before Hydra starts a job.

    The runs of a --multirun are jobs of their own, one after the other; one that fails does not stop the others.
    """
    parsed = hydra_app.parse(arguments)
    if hydra_app.only_shows(parsed):
        hydra_app.show(parsed, {}, config_name=compose.CONFIG_NAME)
        return
    configs = compose.check(parsed.overrides, multirun=parsed.multirun, config_dir=parsed.config_dir)
    if len({checked.train.num_threads for checked in configs}) > 1:
        raise ConfigError("train.num_threads: one number for all runs of a --multirun, since they share a process")
    if parsed.cfg or parsed.info:
        hydra_app.show(parsed, configs[0].addresses(), config_name=compose.CONFIG_NAME)
        return
    for uri in {store.resolve_uri(checked.tracking) for checked in configs}:
        store.begin(uri)
    runs = overrides.split_runs(parsed.overrides, multirun=parsed.multirun)
    jobs = [
        (partial(_train_once, config, given, config_dir=parsed.config_dir), given)
        for config, given in zip(configs, runs, strict=True)
    ]
    found = [hydra_app.run(job, parsed, given, config_name=compose.CONFIG_NAME) for job, given in jobs]
    failures = [failure for failure in found if failure is not None]
    for failure in failures[:-1]:
        print_error(failure)
    if failures:
        raise failures[-1]


def _train_once(config: "Config", given: Sequence[str], *, config_dir: str | None) -> None:
    with heavy_imports():
        from mnist_pipeline.pipeline import request, run
        from mnist_pipeline.tracking import mlflow_tracker
    from mnist_pipeline.cli import console

    own, searched = hydra_app.split(given, config_dir)

    def compose_again(changed: list[str]) -> "Config":
        return compose.check([*searched, *changed], config_dir=config_dir)[0]

    asked = request.prepare(config, own, compose=compose_again)
    tracker = mlflow_tracker.MlflowTracker(asked.config.tracking)
    with console.EpochProgress(asked.config.train.num_epochs) as progress:
        result = run.execute(asked, tracker, on_epoch=progress)
    console.print_result(result)
