"""The commands that look at runs: `compare`, `diff` and `report`."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import make_parser, require_output, require_store
from mnist_pipeline.cli.errors import print_error
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.registry import settings
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError, UserError

_STORE_HELP = "data=, tracking.uri= and tracking.experiment= as for train"
_NAMES_HELP = "id or name, champion, challenger, model@alias, or the number of a registered version"
_FORMATS = (".csv", ".parquet", ".md", ".html")


def compare(arguments: Sequence[str]) -> None:
    """Run the `compare` command.

    Raises:
        UserError: A run that was named cannot be compared; the others are shown.
    """
    parser = make_parser("compare", "Compares runs: what differs, which is best, and how sure that is.")
    words = f"runs: {_NAMES_HELP}; a study stands for its trials; default: those that train made, and winners of sweeps"
    parser.add_argument("words", nargs="*", metavar="[RUN...] [KEY=VALUE]", help=f"{words}; {_STORE_HELP}")
    parser.add_argument("--filter", metavar="CONDITION", help='as in MLflow\'s search box: "metrics.`test/loss` < 0.1"')
    parser.add_argument(
        "--group-by", metavar="KEYS", help="params, e.g. hidden_width,dropout_rate; default: all but seeds"
    )
    parser.add_argument("--top", type=_positive, metavar="N", help="the best N alone; default: 20 on the screen")
    output = f"a file ({', '.join(_FORMATS)}) for the table: of configurations where --group-by is given, else of runs"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="for accuracy against params and time, as PNG")
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = _split(parsed.words)
    where = settings.read(overrides)
    require_output(parsed.output, formats=_FORMATS)
    _require_folder(parsed.figures)
    require_store(where.tracking)
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
        with files.whole(parsed.output) as unfinished:
            match parsed.output.suffix.lower():
                case ".csv":
                    table.to_csv(unfinished, index=False)
                case ".parquet":
                    table.to_parquet(unfinished, index=False)
                case _:
                    unfinished.write_text(view.to_markdown(laid_out), encoding="utf-8")
    if parsed.figures is not None:
        for name, picture in comparison_page.draw_figures(found).items():
            with files.whole(parsed.figures / f"{name}.png") as unfinished:
                unfinished.write_bytes(picture.png)
    for written in filter(None, (parsed.output, parsed.figures)):
        view.print_written(written)
    _raise_last(selected.problems)


def diff(arguments: Sequence[str]) -> None:
    """Run the `diff` command.

    Raises:
        UserError: Something of the two cannot be compared; the rest is shown.
    """
    parser = make_parser("diff", "Compares two runs: configuration, data, code, versions, metrics, single images.")
    named, where, output = _read_page_arguments(parser, arguments, metavar="A B", num_named=2, what="two runs, A and B")

    with heavy_imports():
        from mnist_pipeline.reports import diff as comparing
        from mnist_pipeline.reports import diff_page, page, pictures
        from mnist_pipeline.reports import terminal as view
        from mnist_pipeline.tracking import find_run, mlflow_store

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        runs, unknown = [], []
        for name in named:
            try:
                runs.append(find_run.find(store, name, model_name=where.model_name))
            except UserError as error:
                unknown.append(str(error))
        _raise_last(unknown)
        a, b = (comparing.read_side(letter, run) for letter, run in zip("AB", runs, strict=True))
        aliases = find_run.list_aliases(store)
    found = comparing.diff(a, b)
    problems = list(found.problems)
    images = None
    if found.comparison is not None and not found.disagreements.empty:
        try:
            images = pictures.find_test_images(runs, num_images=found.comparison.num_images)
        except UserError as error:
            problems.append(f"the images themselves cannot be shown: {error}")
    laid_out = diff_page.lay_out(found, aliases, images)
    path = _place(output, f"diff-{a.run.run_id[:8]}-{b.run.run_id[:8]}")
    view.print_page(laid_out)
    page.write(laid_out, path)
    view.print_written(path)
    _raise_last(problems)


def report(arguments: Sequence[str]) -> None:
    """Run the `report` command.

    Raises:
        UserError: Something of the run is missing; the report has the rest.
    """
    parser = make_parser("report", "Writes one HTML file on a run or a study, and logs it on the run.")
    named, where, output = _read_page_arguments(
        parser, arguments, metavar="RUN|STUDY", num_named=1, what="one run or study"
    )

    with heavy_imports():
        from mnist_pipeline.reports import cards, page
        from mnist_pipeline.reports import terminal as view
        from mnist_pipeline.tracking import find_run, mlflow_store

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        run = find_run.find(store, named[0], model_name=where.model_name)
        card = cards.make(store, run)
        path = _place(output, f"report-{run.run_id[:8]}")
        page.write(card.page, path)
        view.print_report(card.page, path)
        view.print_addresses(cards.log(store, card))
    _raise_last(card.problems)


def _read_page_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, metavar: str, num_named: int, what: str
) -> tuple[list[str], settings.RegistryConfig, Path | None]:
    """Return the names of runs, the store to find them in, and where the page is to be written if that is said.

    Raises:
        ConfigError: They are not as many names as expected, or the page cannot be written there.
        UserError: There is no store yet.
    """
    parser.add_argument(
        "words", nargs="+", metavar=f"{metavar} [KEY=VALUE]", help=f"{what}: {_NAMES_HELP}; {_STORE_HELP}"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="the page; default: one in mlruns/reports/")
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = _split(parsed.words)
    if len(named) != num_named:
        raise ConfigError(f"expected {what}: got {len(named)}")
    where = settings.read(overrides)
    require_output(parsed.output, formats=(".html",))
    require_store(where.tracking)
    return named, where, parsed.output


def _place(output: Path | None, name: str) -> Path:
    """Return where a page is written."""
    if output is not None:
        return output
    folder = paths.mlruns_dir() / "reports"
    paths.require_writable(folder)
    return folder / f"{name}.html"


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell names of runs from overrides."""
    named = [word for word in words if "=" not in word and not word.startswith("~")]
    if "" in named:
        raise ConfigError("an empty name of a run: give its id or name")
    return named, [word for word in words if word not in named]


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


def _raise_last(problems: Sequence[str]) -> None:
    """Tell every problem in a line of its own; the exit code is then 1."""
    for problem in problems[:-1]:
        print_error(UserError(problem))
    if problems:
        raise UserError(problems[-1])
