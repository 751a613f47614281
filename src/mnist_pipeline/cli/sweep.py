"""The command `sweep`."""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from mnist_pipeline.cli import hydra_app
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.config import compose
from mnist_pipeline.sweep import space, storage
from mnist_pipeline.system import temporary
from mnist_pipeline.system.errors import ConfigError, Terminated, UserError
from mnist_pipeline.system.signals import STOP_SIGNALS
from mnist_pipeline.tracking import store

if TYPE_CHECKING:
    from mnist_pipeline.config.sections import Config


def sweep(arguments: Sequence[str]) -> None:
    """Run the `sweep` command: a Hydra app too."""
    parsed = hydra_app.parse(arguments)
    if parsed.multirun:
        raise ConfigError("--multirun: not for this command; the values to try stand in sweep.space")
    if hydra_app.only_shows(parsed):
        hydra_app.show(parsed, {}, config_name=compose.SWEEP_CONFIG_NAME)
        return
    base, values, fixed = compose.check_sweep(parsed.overrides, config_dir=parsed.config_dir)
    config = space.read(values, base, fixed=fixed)
    if parsed.cfg or parsed.info:
        shown = {} if config.storage is None else {"sweep.storage": config.storage}
        hydra_app.show(parsed, {**base.addresses(), **shown}, config_name=compose.SWEEP_CONFIG_NAME)
        return
    if config.storage is not None:
        storage.check(config.storage)
    store.begin(store.resolve_uri(base.tracking))
    job = partial(_sweep_once, base, config, parsed.overrides, config_dir=parsed.config_dir)
    failure = hydra_app.run(job, parsed, parsed.overrides, config_name=compose.SWEEP_CONFIG_NAME)
    if failure is not None:
        raise failure


def _sweep_once(base: "Config", config: space.SweepConfig, overrides: Sequence[str], *, config_dir: str | None) -> None:
    from mnist_pipeline.sweep.executors import forkserver

    temporary.begin()
    forkserver.context()  # it imports TensorFlow while this process imports everything else
    with heavy_imports():
        from mnist_pipeline.pipeline import request
        from mnist_pipeline.sweep import sweep
        from mnist_pipeline.sweep.executors import local
        from mnist_pipeline.tracking import mlflow_tracker
    from mnist_pipeline.cli import sweep_view as view

    own, searched = hydra_app.split(overrides, config_dir)

    def compose_again(changed: list[str]) -> "Config":
        return compose.check_sweep([*searched, *changed], config_dir=config_dir)[0]

    asked = request.prepare(base, own, compose=compose_again)
    tracker = mlflow_tracker.MlflowTracker(asked.config.tracking)
    stop = local.Stop()
    is_second = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_second
        if is_second:  # the workers die with this process; what is kept is what a kill would leave
            os._exit(130 if number == signal.SIGINT else 143)
        is_second = True
        stop.set(KeyboardInterrupt() if number == signal.SIGINT else Terminated())
        print("stopping after the running epochs; once more stops at once", file=sys.stderr)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
    with view.SweepProgress(config) as progress:
        try:
            result = sweep.sweep(asked, config, tracker, progress=progress, stop=stop)
        except (KeyboardInterrupt, Terminated):
            progress.print_stopped()
            raise
        except MemoryError as error:
            raise UserError(
                "not enough memory: free some or lower sweep.num_workers, and run the same command again, which resumes"
            ) from error
    view.print_result(result)
    if result.failures:
        raise UserError(result.failures)
