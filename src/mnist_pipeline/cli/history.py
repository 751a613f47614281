"""The command `history`."""

import contextlib
from collections.abc import Sequence

from mnist_pipeline.cli.arguments import WAIT_HELP, make_parser, require_store
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.tracking import store


def history(arguments: Sequence[str]) -> None:
    """Run the `history` command."""
    parser = make_parser("history", "Shows every decision about the champion of <data>-classifier.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=WAIT_HELP)
    where = settings.read(parser.parse_intermixed_args(arguments).overrides)
    require_store(where.tracking, to_write=False)

    with heavy_imports():
        from mnist_pipeline.registry import changes
        from mnist_pipeline.registry import history as past
        from mnist_pipeline.registry.registry import Registry, propose_champion
        from mnist_pipeline.tracking import mlflow_store
    from mnist_pipeline.cli import registry_view as view

    opened = mlflow_store.MlflowStore(where.tracking)
    with opened.reporting_errors():
        registry = Registry(opened, where.model_name)
        if not store.is_read_only(opened.uri):
            with contextlib.suppress(UserError), changes.alone(registry, wait=False):
                pass  # settle what a killed command left; a running command settles its own entry
        found = past.read_history(registry)
    if not found.entries:
        raise UserError(f"{where.model_name} has no history yet: {propose_champion(opened)}")
    view.print_history(found)
