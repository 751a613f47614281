"""The command `promote`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import WAIT_HELP, make_parser, require_store, split_words
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import ConfigError, RefusedError
from mnist_pipeline.system.heavy_imports import heavy_imports


def promote(arguments: Sequence[str]) -> None:
    """Run the `promote` command.

    Raises:
        RefusedError: A gate refused.
    """
    parser = make_parser("promote", "Makes a run's model the champion of <data>-classifier, if it passes the gates.")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[RUN] [KEY=VALUE]",
        help=f"id or name of the run, default: the best by validation accuracy; promote.KEY=VALUE; {WAIT_HELP}",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the absolute gates, and write nothing")
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = split_words(parsed.words)
    if len(named) > 1:
        raise ConfigError(f"{' '.join(named)}: one run at a time")
    where, bounds = settings.read_promote(overrides)
    require_store(where.tracking, to_write=True)

    with heavy_imports():
        from mnist_pipeline.registry import history, promote
        from mnist_pipeline.reports import cards
        from mnist_pipeline.tracking import mlflow_store
        from mnist_pipeline.tracking.registered_models import CHAMPION
    from mnist_pipeline.cli import registry_view as view

    opened = mlflow_store.MlflowStore(where.tracking)
    with opened.reporting_errors():
        result = promote.promote(opened, where, bounds, named=named[0] if named else None, is_dry_run=parsed.dry_run)
        if not parsed.dry_run and result.registry.model.named(CHAMPION) == result.version:
            cards.log(opened, cards.make(opened, result.candidate.run))
        view.print_promotion(result)
        view.print_budget(history.read_history(result.registry))
    if any(gate.is_passed is False for gate in result.gates):
        raise RefusedError(f"{result.candidate.run.name} does not pass the gates: train a better one, or give another")
