"""The command `rollback`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import WAIT_HELP, make_parser, require_store
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import ConfigError, RefusedError
from mnist_pipeline.system.heavy_imports import heavy_imports


def rollback(arguments: Sequence[str]) -> None:
    """Run the `rollback` command.

    Raises:
        RefusedError: The version does not predict as it did.
    """
    parser = make_parser("rollback", "Makes an earlier champion the champion again, once it still predicts as it did.")
    help_text = "default: the previous champion; none: remove a damaged champion"
    parser.add_argument("--to", type=_version_or_none, metavar="VERSION", help=help_text)
    parser.add_argument("--reason", required=True, help="for the ledger")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=WAIT_HELP)
    parsed = parser.parse_intermixed_args(arguments)
    if not parsed.reason.strip() or not parsed.reason.isprintable():
        raise ConfigError("--reason: expected one line of text, for the ledger")
    where = settings.read(parsed.overrides)
    require_store(where.tracking, to_write=True)

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
