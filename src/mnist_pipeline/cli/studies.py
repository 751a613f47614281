"""The command `studies`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import STORE_HELP, make_parser, require_store
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.system.hints import command


def studies(arguments: Sequence[str]) -> None:
    """Run the `studies` command."""
    parser = make_parser("studies", "Lists the studies that sweeps made: trials, the best of them, the winner.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=STORE_HELP)
    where = settings.read(parser.parse_intermixed_args(arguments).overrides)
    require_store(where.tracking, to_write=False)

    with heavy_imports():
        from mnist_pipeline.reports import studies as listing
        from mnist_pipeline.reports.terminal import print_table
        from mnist_pipeline.system.console import print_fields
        from mnist_pipeline.tracking import mlflow_store, runs
        from mnist_pipeline.tracking.record import Kind, Tag

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        found = list(runs.search(store, runs.experiment_ids(store), {Tag.KIND: Kind.SWEEP}))
    if not found:
        raise UserError(f"there are no studies yet: {command('sweep')} makes one")
    print_table(listing.tabulate(found), most_rows=None)
    newest = max(found, key=lambda run: run.started_ms).tags.get(Tag.STUDY, "")
    print_fields(
        {"next": f"{command('report', newest)} shows one; a sweep that was stopped resumes by its own command"}
    )
