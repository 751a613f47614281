"""The arguments of `diff` and `report`, which write a page about named runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import RUN_HELP, STORE_HELP, require_output, require_store, split_words
from mnist_pipeline.registry import settings
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError


def read_page_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, metavar: str, num_named: int, what: str
) -> tuple[list[str], settings.RegistryConfig, Path | None]:
    """Return the names of runs, the store to find them in, and the path of the page if it was given.

    Raises:
        ConfigError: The number of names is wrong, or the page cannot be written there.
        UserError: There is no store yet.
    """
    parser.add_argument("words", nargs="+", metavar=f"{metavar} [KEY=VALUE]", help=f"{what}: {RUN_HELP}; {STORE_HELP}")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="the page; default: one in mlruns/reports/")
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = split_words(parsed.words)
    if len(named) != num_named:
        raise ConfigError(f"expected {what}: got {len(named)}")
    where = settings.read(overrides)
    require_output(parsed.output, formats=(".html",))
    require_store(where.tracking, to_write=False)
    if parsed.output is None:
        try:
            paths.require_writable(_pages_dir())
        except ConfigError as error:
            raise ConfigError(f"{error}, or give --output FILE.html") from error
    return named, where, parsed.output


def place_page(output: Path | None, name: str) -> Path:
    """Return the path of a page."""
    return output or _pages_dir() / f"{name}.html"


def _pages_dir() -> Path:
    return paths.mlruns_dir() / "reports"
