"""The command `train`."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mnist_pipeline.cli import hydra_app
from mnist_pipeline.cli.errors import ReportedError, print_error
from mnist_pipeline.config import compose
from mnist_pipeline.config.overrides import split_runs
from mnist_pipeline.config.sections import ExecutorName
from mnist_pipeline.system.errors import ConfigError, Terminated
from mnist_pipeline.system.heavy_imports import begin
from mnist_pipeline.tracking import store

if TYPE_CHECKING:
    from mnist_pipeline.config.sections import Config
    from mnist_pipeline.pipeline.run import RunResult


def train(arguments: Sequence[str]) -> None:
    """Run the `train` command: a Hydra app that checks every configuration before the first run starts.

    The runs of a --multirun come one after the other, or as many at once as `executor.num_workers` says; one that fails
    is reported and does not stop the others.
    """
    parsed = hydra_app.parse(arguments)
    if hydra_app.only_shows(parsed):
        hydra_app.show(parsed, {}, config_name=compose.RUN.config_name)
        return
    configs = compose.check(parsed.overrides, multirun=parsed.multirun, config_dir=parsed.config_dir)
    if len({config.train.num_threads for config in configs}) > 1:
        raise ConfigError("train.num_threads: one number for all runs of a --multirun, because they share a process")
    if parsed.cfg or parsed.info:
        hydra_app.show(parsed, configs[0].addresses(), config_name=compose.RUN.config_name)
        return
    for uri in {store.resolve_uri(config.tracking) for config in configs}:
        store.begin(uri)
    expanded = compose.expand_globs(parsed.overrides, config_dir=parsed.config_dir)
    runs = split_runs(expanded, multirun=parsed.multirun)
    if _needs_workers(configs):
        from mnist_pipeline.cli import multirun

        multirun.train_with_workers(configs, runs, config_dir=parsed.config_dir)
    elif len(runs) == 1:
        result = _train_once(configs[0], runs[0], config_dir=parsed.config_dir)
        from mnist_pipeline.cli import console

        console.print_result(result)
    else:
        _train_each(configs, runs, config_dir=parsed.config_dir)


def _needs_workers(configs: "Sequence[Config]") -> bool:
    """Return whether the runs are trained side by side, or elsewhere.

    Raises:
        ConfigError: They differ in what they share.
    """
    executor = configs[0].executor
    if any(config.executor != executor for config in configs):
        raise ConfigError("executor: one for all runs of a --multirun")
    is_here = executor.name is ExecutorName.local and (executor.num_workers == 1 or len(configs) == 1)
    if not is_here and len({str(config.tracking) for config in configs}) > 1:
        raise ConfigError("tracking: one store and experiment for all runs of a --multirun that are trained at once")
    return not is_here


def _train_each(configs: "Sequence[Config]", runs: Sequence[Sequence[str]], *, config_dir: str | None) -> None:
    """Train the runs of a --multirun one after the other.

    Raises:
        ReportedError: One of them failed.
    """
    begin()
    from mnist_pipeline.cli import console

    common = set.intersection(*map(set, runs))
    done: list[tuple[console.Job, RunResult | None]] = []
    failure = None
    for number, (config, overrides) in enumerate(zip(configs, runs, strict=True), start=1):
        job = console.Job(number, len(runs), tuple(one for one in overrides if one not in common))
        console.print_job(job)
        result = None
        try:
            result = _train_once(config, overrides, config_dir=config_dir)
            console.print_scores(result)
        except Exception as error:
            print_error(error)
            failure = error
        done.append((job, result))
    console.print_jobs(done)
    if failure is not None:
        raise ReportedError(failure)


def _train_once(config: "Config", overrides: Sequence[str], *, config_dir: str | None) -> "RunResult":
    begin()
    from mnist_pipeline.cli import console
    from mnist_pipeline.pipeline import request, run
    from mnist_pipeline.tracking import mlflow_tracker

    # First the data, which has most that can be wrong: it does not need TensorFlow.
    asked = request.prepare(
        config, overrides, compose_with_data=partial(compose.compose_with_data, config_dir=config_dir)
    )
    tracker = mlflow_tracker.MlflowTracker(asked.config.tracking)
    with console.EpochProgress(asked.config.train.num_epochs) as progress:
        try:
            return run.execute(asked, tracker, on_epoch=progress)
        except (KeyboardInterrupt, Terminated):
            progress.print_stopped()
            raise
