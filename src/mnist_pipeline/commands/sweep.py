"""The command `sweep`."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from mnist_pipeline import composing, store
from mnist_pipeline.commands import hydra_app
from mnist_pipeline.commands.importing import heavy_imports
from mnist_pipeline.errors import ConfigError, Terminated, UserError
from mnist_pipeline.signals import STOP_SIGNALS
from mnist_pipeline.sweep import space, storage

if TYPE_CHECKING:
    from mnist_pipeline.config import Config


def sweep(arguments: Sequence[str]) -> None:
    """Run the `sweep` command: a Hydra app too."""
    parsed = hydra_app.parse(arguments)
    if parsed.multirun:
        raise ConfigError("--multirun: not for this command; the values to try stand in sweep.space")
    if hydra_app.only_shows(parsed):
        hydra_app.run(lambda composed: None, arguments, config_name=composing.SWEEP_CONFIG_NAME)
        return
    base, values, fixed = composing.check_sweep(parsed.overrides, config_dir=parsed.config_dir)
    config = space.read(values, base, fixed=fixed)
    if not (parsed.cfg or parsed.info):
        if config.storage is not None:
            storage.check(config.storage)
        store.begin(store.resolve_uri(base.tracking))
    hydra_app.run(
        lambda composed: _sweep_once(base, config, config_dir=parsed.config_dir),
        arguments,
        config_name=composing.SWEEP_CONFIG_NAME,
    )


def _sweep_once(base: "Config", config: space.SweepConfig, *, config_dir: str | None) -> None:
    from mnist_pipeline.sweep import server

    server.context()  # it imports TensorFlow while this process imports everything else
    with heavy_imports():
        from mnist_pipeline import mlflow_tracking, request
        from mnist_pipeline.sweep import crew, run
    from mnist_pipeline import console  # only now: it looks whether stderr is a terminal
    from mnist_pipeline.sweep import console as view

    console.show_log()
    given, searched = hydra_app.given_overrides(config_dir)

    def compose(overrides: list[str]) -> "Config":
        return composing.check_sweep([*searched, *overrides], config_dir=config_dir)[0]

    asked = request.prepare(base, given, compose=compose)
    tracker = mlflow_tracking.MlflowTracker(asked.config.tracking)
    stop = crew.Stop()
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
            result = run.sweep(asked, config, tracker, progress=progress, stop=stop)
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
