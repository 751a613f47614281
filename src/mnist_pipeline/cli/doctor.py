"""The command `doctor`."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_pipeline.cli.arguments import make_parser
from mnist_pipeline.config import compose
from mnist_pipeline.system.console import print_fields
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking import store

if TYPE_CHECKING:
    from mnist_pipeline.doctor.examination import Tally

_WIDTH = 10


def doctor(arguments: Sequence[str]) -> None:
    """Run the `doctor` command: examine a store and what lies beside it; repair it with --fix, free space with --prune.

    Raises:
        UserError: Something is left to repair.
    """
    parser = make_parser("doctor", "Examines the store that train writes to, and what lies beside it.")
    parser.add_argument("--fix", action="store_true", help="repair what is wrong; can be killed and repeated")
    help_text = "free space: runs deleted in the UI, checkpoints of runs that are done, decoded images"
    parser.add_argument("--prune", action="store_true", help=help_text)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_intermixed_args(arguments)

    config = compose.compose(parsed.overrides).tracking
    uri = store.resolve_uri(config)
    if store.is_missing(uri):
        raise UserError(f"{store.database_of(uri)}: there is no store yet: train a run first ({command('train')})")
    store.check(uri, to_write=parsed.fix or parsed.prune, may_be_unsound=True)

    with heavy_imports():
        from mnist_pipeline.doctor import examination, leftovers
        from mnist_pipeline.doctor.finding import Remedy
        from mnist_pipeline.tracking import mlflow_store

    remedies = [*([Remedy.fix] if parsed.fix else []), *([Remedy.prune] if parsed.prune else [])]
    tally = examination.Tally()

    def show(state: str, line: str) -> None:
        print_fields({state: line}, width=_WIDTH)

    examination.treat(examination.examine_database(uri), remedies, tally, show=show)
    if tally == examination.Tally():
        opened = mlflow_store.MlflowStore(config)
        with opened.reporting_errors():
            examination.treat(examination.examine(opened), remedies, tally, show=show)
    show("space", leftovers.describe_space(store.database_of(uri)))
    _conclude(tally, list(map(shlex.quote, parsed.overrides)))


def _conclude(tally: "Tally", overrides: list[str]) -> None:
    if tally.num_to_prune:
        pruning = command("doctor", "--prune", *overrides)
        print_fields({"next": f"{pruning} frees what is to prune"}, width=_WIDTH)
    if tally.num_to_fix:
        raise UserError(f"{tally.num_to_fix} to fix: run {command('doctor', '--fix', *overrides)}")
    if tally.num_by_hand:
        raise UserError(f"{tally.num_by_hand} cannot be repaired by a program: do what the lines above say")
    print_fields({"ok": "nothing to repair"}, width=_WIDTH)
