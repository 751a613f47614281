"""The report on a run as its model card: logged on the run, and linked from the registered versions of its model."""

from dataclasses import dataclass

from mnist_pipeline.reports import page, report, study_report
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Page
from mnist_pipeline.tracking import find_run, registered_models, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Kind, RunRecord


@dataclass(frozen=True)
class Card:
    """The report on a run.

    Attributes:
        problems: One line each: what is missing.
    """

    run: RunRecord
    page: Page
    problems: tuple[str, ...]


def make(store: MlflowStore, run: RunRecord) -> Card:
    """Return the report on a run."""
    logged = Logged(run)
    kind = study_report if run.kind == Kind.SWEEP else report
    aliases = find_run.list_aliases(store).get(run.run_id, ())
    laid_out = kind.lay_out(logged, aliases=aliases, uri=str(store.uri))
    status = None if run.is_finished else f"{run.name} is {run.status}: the report has only what it has logged"
    problems = tuple(problem for problem in (status, logged.describe_missing()) if problem)
    return Card(run=run, page=laid_out, problems=problems)


def log(store: MlflowStore, card: Card) -> dict[str, str]:
    """Log the report on its run, unless the run is still running, and link it from the versions of the run's model.

    Returns:
        The addresses of the pages in MLflow that show it, by description.
    """
    if card.run.status == "RUNNING":
        return {}
    runs.log_report(store, card.run.run_id, page.render(card.page))
    shown_at = runs.report_page(card.run.experiment_id, card.run.run_id)
    addresses = {"on the run": store.address(shown_at)}
    for model, version in registered_models.find_versions(store, card.run.run_id):
        model.link_card(version, shown_at)
        addresses[f"version {version}"] = store.address(f"models/{model.name}/versions/{version}")
    return addresses
