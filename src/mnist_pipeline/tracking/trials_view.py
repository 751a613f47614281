"""The page of MLflow's UI that compares the trials of a sweep: a shared view, kept as a tag of the experiment."""

import json
from collections.abc import Sequence

from mnist_pipeline.tracking.record import Kind, Tag
from mnist_pipeline.tracking.store import UI_VIEW

_PREFIX = "mlflow.sharedViewState."
_HEIGHT = 560
_SECTION = "trials"


def address(experiment_id: str, sweep_id: str) -> str:
    """Return what follows the `#` in the page's address."""
    return f"/experiments/{experiment_id}/runs{UI_VIEW}&compareRunsMode=CHART&viewStateShareKey={_key(sweep_id)}"


def describe(sweep_id: str, *, params: Sequence[str], metric: str) -> tuple[str, str]:
    """Return the tag's key and value.

    Args:
        sweep_id: Of the trials' parent. In an order of a metric MLflow lists them alone, without the parent.
        params: The axes, before the metric.
        metric: The last axis.
    """
    chart = {
        "uuid": "parallel",
        "type": "PARALLEL",
        "runsCountToCompare": 100,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        "selectedParams": list(params),
        "selectedMetrics": [metric],
        "showAllRuns": True,
    }
    section = {
        "uuid": _SECTION,
        "name": "Trials",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 1,
        "cardHeight": _HEIGHT,
    }
    view = {
        "searchFilter": f"tags.`{Tag.PARENT}` = '{sweep_id}' and tags.`{Tag.KIND}` = '{Kind.TRIAL}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": False,
        "selectedColumns": [f"metrics.`{metric}`", *(f"params.`{key}`" for key in params)],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunCharts": [chart],
        "compareRunSections": [section],
    }
    return f"{_PREFIX}{_key(sweep_id)}", json.dumps(view)


def _key(sweep_id: str) -> str:
    return f"trials-{sweep_id}"
