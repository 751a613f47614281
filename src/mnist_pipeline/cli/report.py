"""The command `report`."""

from collections.abc import Sequence

from mnist_pipeline.cli.arguments import make_parser
from mnist_pipeline.cli.errors import report_problems
from mnist_pipeline.cli.page_arguments import place_page, read_page_arguments
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.tracking.store import is_read_only


def report(arguments: Sequence[str]) -> None:
    """Run the `report` command.

    Raises:
        UserError: Something of the run is missing; the report has the rest.
    """
    parser = make_parser("report", "Writes one HTML file on a run or a study, and logs it on the run.")
    named, where, output = read_page_arguments(
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
        path = place_page(output, f"report-{run.run_id[:8]}")
        page.write(card.page, path)
        view.print_report(card.page, path)
        is_logged = not is_read_only(store.uri)
        note = "the store can only be read, so the page is not logged on the run"
        view.print_addresses(cards.log(store, card) if is_logged else {"note": note})
    report_problems(card.problems)
