"""The commands on the registry: `promote`, `rollback` and `history`."""

import contextlib
from collections.abc import Sequence

from mnist_pipeline.cli.arguments import STORE_HELP, make_parser, require_store
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import ConfigError, RefusedError, UserError


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
        help=f"id or name of the run, default: the best by validation accuracy; promote.KEY=VALUE; {STORE_HELP}",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the absolute gates, and write nothing")
    parsed = parser.parse_intermixed_args(arguments)
    named = [word for word in parsed.words if "=" not in word and not word.startswith("~")]
    if len(named) > 1:
        raise ConfigError(f"{' '.join(named)}: one run at a time")
    if "" in named:
        raise ConfigError("an empty name of a run: give its id or name, or nothing at all for the best one")
    where, bounds = settings.read_promote([word for word in parsed.words if word not in named])
    require_store(where.tracking)

    with heavy_imports():
        from mnist_pipeline.registry import changes, promote
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
        view.print_budget(changes.read_history(result.registry))
    if any(gate.is_passed is False for gate in result.gates):
        raise RefusedError(f"{result.candidate.run.name} does not pass the gates: train a better one, or give another")


def rollback(arguments: Sequence[str]) -> None:
    """Run the `rollback` command.

    Raises:
        RefusedError: The version does not predict as it did.
    """
    parser = make_parser("rollback", "Makes an earlier champion the champion again, once it still predicts as it did.")
    help_text = "default: the one that the champion took over from; none: give up a champion that is damaged"
    parser.add_argument("--to", type=_version_or_none, metavar="VERSION", help=help_text)
    parser.add_argument("--reason", required=True, help="for the ledger")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=STORE_HELP)
    parsed = parser.parse_intermixed_args(arguments)
    if not parsed.reason.strip() or not parsed.reason.isprintable():
        raise ConfigError("--reason: expected a line that tells others why")
    where = settings.read(parsed.overrides)
    require_store(where.tracking)

    with heavy_imports():
        from mnist_pipeline.registry import rollback as way_back
        from mnist_pipeline.tracking import mlflow_store
    from mnist_pipeline.cli import registry_view as view

    opened = mlflow_store.MlflowStore(where.tracking)
    with opened.reporting_errors():
        decision = way_back.rollback(opened, where, to=parsed.to, reason=parsed.reason.strip())
    view.print_rollback(decision, where.model_name)
    if any(gate.is_passed is False for gate in decision.gates):
        raise RefusedError(f"version {decision.version} is refused: see the gates above; --to names another")


def _version_or_none(text: str) -> int | str:
    return text if text == "none" else int(text)


def history(arguments: Sequence[str]) -> None:
    """Run the `history` command."""
    parser = make_parser("history", "Shows every decision about the champion of <data>-classifier.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=STORE_HELP)
    where = settings.read(parser.parse_intermixed_args(arguments).overrides)
    require_store(where.tracking)

    with heavy_imports():
        from mnist_pipeline.registry import changes
        from mnist_pipeline.tracking import mlflow_store
    from mnist_pipeline.cli import registry_view as view

    opened = mlflow_store.MlflowStore(where.tracking)
    with opened.reporting_errors():
        registry = changes.Registry(opened, where.model_name)
        with contextlib.suppress(UserError), changes.alone(registry, wait=False):
            pass  # what a killed command left is settled now; a living one does so itself
        found = changes.read_history(registry)
    if not found.entries:
        raise UserError(
            f"{where.model_name} has no history yet: promote a run (mnist-pipeline promote data={where.data_name})"
        )
    view.print_history(found)
