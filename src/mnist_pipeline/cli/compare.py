"""The command `compare`."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import RUN_HELP, STORE_HELP, make_parser, require_output, require_store, split_words
from mnist_pipeline.cli.errors import report_problems
from mnist_pipeline.registry import settings
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.heavy_imports import heavy_imports

_FORMATS = (".csv", ".parquet", ".md", ".html")


def compare(arguments: Sequence[str]) -> None:
    """Run the `compare` command.

    Raises:
        UserError: A run that was named cannot be compared; the others are shown.
    """
    parser = make_parser("compare", "Compares runs: what differs, which is best, and how sure that is.")
    words = f"runs: {RUN_HELP}; a study stands for its trials; default: those that train made, and winners of sweeps"
    parser.add_argument("words", nargs="*", metavar="[RUN...] [KEY=VALUE]", help=f"{words}; {STORE_HELP}")
    parser.add_argument("--filter", metavar="CONDITION", help='as in MLflow\'s search box: "metrics.`test/loss` < 0.1"')
    parser.add_argument(
        "--group-by", metavar="KEYS", help="params, e.g. hidden_width,dropout_rate; default: all but seeds"
    )
    parser.add_argument("--top", type=_positive, metavar="N", help="the best N alone; default: 20 on the screen")
    output = f"a file ({', '.join(_FORMATS)}) for the table: of configurations where --group-by is given, else of runs"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="for accuracy against params and time, as PNG")
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = split_words(parsed.words)
    where = settings.read(overrides)
    require_output(parsed.output, formats=_FORMATS)
    _require_folder(parsed.figures)
    require_store(where.tracking, to_write=False)
    group_by = parsed.group_by.split(",") if parsed.group_by else None

    with heavy_imports():
        from mnist_pipeline.reports import compare as comparing
        from mnist_pipeline.reports import comparison_page, page, select
        from mnist_pipeline.reports import terminal as view
        from mnist_pipeline.system import files
        from mnist_pipeline.tracking import find_run, mlflow_store

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        selected = select.select(store, where, named, condition=parsed.filter)
        aliases = find_run.list_aliases(store)
    found = comparing.compare(selected.runs, aliases=aliases, group_by=group_by)
    is_page = parsed.output is not None and parsed.output.suffix.lower() == ".html"
    laid_out = comparison_page.lay_out(found, top=parsed.top, notes=selected.notes, with_figures=is_page)
    view.print_page(laid_out, most_rows=None if parsed.top else view.MOST_ROWS)
    if is_page:
        page.write(laid_out, parsed.output)
    elif parsed.output is not None:
        table = (found.groups if group_by else found.table).head(parsed.top)
        with files.output(parsed.output) as unfinished:
            match parsed.output.suffix.lower():
                case ".csv":
                    table.to_csv(unfinished, index=False)
                case ".parquet":
                    table.to_parquet(unfinished, index=False)
                case _:
                    unfinished.write_text(view.to_markdown(laid_out), encoding="utf-8")
    if parsed.figures is not None:
        for name, picture in comparison_page.draw_figures(found).items():
            with files.output(parsed.figures / f"{name}.png") as unfinished:
                unfinished.write_bytes(picture.read())
    for written in filter(None, (parsed.output, parsed.figures)):
        view.print_written(written)
    report_problems(selected.problems)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return number


def _require_folder(folder: Path | None) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"--figures {folder}: cannot be written there ({error.strerror or error})") from error
