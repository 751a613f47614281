"""The command `sweep`."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mnist_pipeline.cli import hydra_app
from mnist_pipeline.cli.stopping import stop_on_signals
from mnist_pipeline.config import compose
from mnist_pipeline.sweep import settings, storage
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.system import temporary
from mnist_pipeline.system.errors import ConfigError, Terminated, UserError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.tracking import store

if TYPE_CHECKING:
    from mnist_pipeline.config.sections import Config


def sweep(arguments: Sequence[str]) -> None:
    """Run the `sweep` command: a Hydra app too.

    Raises:
        UserError: Trials failed; the sweep itself is done.
    """
    parsed = hydra_app.parse(arguments)
    if parsed.multirun:
        raise ConfigError("--multirun: not for this command; the values to try belong in sweep.space")
    config_name = settings.SWEEP.config_name
    if hydra_app.only_shows(parsed):
        hydra_app.show(parsed, {}, config_name=config_name)
        return
    base, config = settings.compose_sweep(parsed.overrides, config_dir=parsed.config_dir)
    if parsed.cfg or parsed.info:
        shown = {} if config.storage is None else {"sweep.storage": config.storage}
        hydra_app.show(parsed, {**base.addresses(), **shown}, config_name=config_name)
        return
    if config.storage is not None:
        storage.check(config.storage)
    store.begin(store.resolve_uri(base.tracking))
    _sweep_once(base, config, parsed.overrides, config_dir=parsed.config_dir)


def _sweep_once(base: "Config", config: SweepConfig, overrides: Sequence[str], *, config_dir: str | None) -> None:
    from mnist_pipeline.executors import places

    temporary.begin()
    places.begin(base.executor)
    with heavy_imports():
        from mnist_pipeline.cli import sweep_view
        from mnist_pipeline.executors.pool import StopRequest
        from mnist_pipeline.pipeline import request
        from mnist_pipeline.sweep import sweep as story

    compose_with_data = partial(compose.compose_with_data, schema=settings.SWEEP, config_dir=config_dir)
    asked = request.prepare(base, overrides, compose_with_data=compose_with_data)
    stop = StopRequest()
    stop_on_signals(stop.set)
    with sweep_view.SweepProgress(config) as progress:
        try:
            tracker = story.open_tracker(asked, config, progress, stop)
            result = story.sweep(asked, config, tracker, progress=progress, stop=stop)
        except (KeyboardInterrupt, Terminated):
            progress.print_stopped()
            raise
        except MemoryError as error:
            raise UserError(
                "not enough memory: free some or lower sweep.num_workers, and run the same command again, which resumes"
            ) from error
    sweep_view.print_result(result)
    if result.failures:
        raise UserError(result.failures)
