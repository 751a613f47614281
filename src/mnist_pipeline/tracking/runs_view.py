"""The list of runs in MLflow's UI: a shared view, kept as a tag of the experiment.

MLflow shows no metric of a run until its column is selected. Runs stay in the order of their creation: in any other,
the children of a sweep are not shown below their parent.
"""

import json
import re
from collections.abc import Sequence

from mnist_pipeline.tracking.record import Metric, Tag
from mnist_pipeline.tracking.sqlite_store import OVERVIEW_TAG as TAG

__all__ = ["TAG", "describe", "list_model_keys"]

_MODEL_KEY = re.compile(r"params\.`(model\.(?!name`).*)`")
_CREATED, _DURATION = "attributes.`Created`", "attributes.`Duration`"
_IDS = {_CREATED: "runDateAndNestInfo", _DURATION: "duration"}
"""How MLflow calls a column in its order, where that is not as it calls it among the selected ones."""

_WIDTH = 70
_WIDTHS = {
    "attributes.`Run Name`": 260,
    "runDateAndNestInfo": 135,
    f"tags.`{Tag.ALIAS}`": 190,
    f"metrics.`{Metric.VALIDATION_ACCURACY}`": 84,
    f"metrics.`{Metric.TEST_ACCURACY}`": 84,
}
"""In pixels: whole names, and what runs differ in, in a window of 1440."""


def describe(model_keys: Sequence[str]) -> str:
    """Return the tag's value: the columns, what matters most first, and their widths.

    Args:
        model_keys: Dotted keys of the models that ran.
    """
    columns = [
        f"tags.`{Tag.ALIAS}`",
        f"metrics.`{Metric.VALIDATION_ACCURACY}`",
        f"metrics.`{Metric.TEST_ACCURACY}`",
        "params.`model.name`",
        *(f"params.`{key}`" for key in model_keys if key != "model.name"),
        "params.`train.num_epochs`",
        "params.`train.seed`",
        f"metrics.`{Metric.TEST_LOSS}`",
        f"metrics.`{Metric.TRAIN_SEC}`",
        f"tags.`{Tag.KIND}`",
    ]
    order = ["attributes.`Run Name`", *columns, *_IDS.values()]
    return json.dumps(
        {
            "selectedColumns": [_CREATED, _DURATION, *columns],
            "columnOrder": order,
            "columnWidths": {column: _WIDTHS.get(column, _WIDTH) for column in order},
        }
    )


def list_model_keys(view: str) -> list[str]:
    """Return the keys of models among the columns of a tag's value."""
    columns = json.loads(view).get("selectedColumns", [])
    return [found[1] for found in map(_MODEL_KEY.fullmatch, columns) if found]
