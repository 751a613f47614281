"""The command `diff`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import make_parser
from mnist_pipeline.cli.errors import report_problems
from mnist_pipeline.cli.page_arguments import place_page, read_page_arguments
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.heavy_imports import heavy_imports


def diff(arguments: Sequence[str]) -> None:
    """Run the `diff` command.

    Raises:
        UserError: Something of the two cannot be compared; the rest is shown.
    """
    parser = make_parser("diff", "Compares two runs: configuration, data, code, versions, metrics, single images.")
    named, where, output = read_page_arguments(parser, arguments, metavar="A B", num_named=2, what="two runs, A and B")

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
        report_problems(unknown)
        a, b = (comparing.read_side(letter, run) for letter, run in zip("AB", runs, strict=True))
        aliases = find_run.list_aliases(store)
    found = comparing.diff(a, b)
    view.print_page(diff_page.lay_out(found, aliases, None))  # first: pictures take longer than all the rest
    problems = list(found.problems)
    images = None
    if found.comparison is not None and not found.disagreements.empty:
        try:
            images = pictures.find_test_images(runs, where.data, num_images=found.comparison.num_images)
        except UserError as error:
            problems.append(f"the images themselves cannot be shown: {error}")
    path = place_page(output, f"diff-{a.run.run_id[:8]}-{b.run.run_id[:8]}")
    page.write(diff_page.lay_out(found, aliases, images), path)
    view.print_written(path)
    report_problems(problems)
