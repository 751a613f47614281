"""The command `doctor`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import make_parser
from mnist_pipeline.config import compose
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking import sqlite_store, store


def doctor(arguments: Sequence[str]) -> None:
    """Run the `doctor` command: check a SQLite store, and repair it with --fix.

    Raises:
        UserError: There is something to repair, or it cannot be repaired.
        ConfigError: The store is not a SQLite store.
    """
    parser = make_parser("doctor", "Checks the SQLite store that train writes to: whether it was moved or copied.")
    parser.add_argument("--fix", action="store_true", help="repair it: update its artifact paths")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_intermixed_args(arguments)

    uri = store.resolve_uri(compose.compose(parsed.overrides).tracking)
    database = store.database_of(uri)
    if database is None:
        raise ConfigError(f"{uri}: doctor checks SQLite stores only; give one with tracking.uri=sqlite:///PATH")
    store.check(uri, may_be_moved=True)
    if not database.exists():
        raise UserError(f"{database}: there is no store yet: train a run first (mnist-pipeline train)")
    num_fixed = sqlite_store.repair(database) if parsed.fix else 0
    store.require_in_place(uri)
    if num_fixed:
        print(
            f"repaired: {num_fixed:,} artifact paths of {database} now lead to {sqlite_store.artifacts_dir(database)}"
        )
    else:
        print(f"nothing to repair: {database}")
