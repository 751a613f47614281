"""Two runs side by side: configuration, data, code, versions, metrics, and the images on which the two disagree."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mnist_pipeline.environment import PATCH_FILE
from mnist_pipeline.looking.logged import Logged
from mnist_pipeline.registry import comparison
from mnist_pipeline.registry.comparison import Comparison
from mnist_pipeline.registry.gates import class_names
from mnist_pipeline.tracking import PastRun

PATCH = f"environment/{PATCH_FILE}"
PREDICTIONS = "evaluate/predictions.parquet"
_DATA_TAGS = ("data.digest", "data.test_digest", "data.requested", "data.fallback", "data.sources")


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        letter: A or B.
        commit: Of git; empty where it is not known.
        is_dirty: Whether the code differed from the commit.
        patch: How it did, as far as it was logged.
        history: One row an epoch, as logged; None where it is missing.
        predictions: One row a test image, as logged; None where they are missing.
    """

    letter: str
    run: PastRun
    commit: str
    is_dirty: bool
    patch: str
    versions: Mapping[str, str]
    history: pd.DataFrame | None
    predictions: pd.DataFrame | None
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """What it is called: A (its name)."""
        return f"{self.letter} ({self.run.name})"


@dataclass(frozen=True)
class Diff:
    """What differs between two runs; in tables with a column for each.

    Attributes:
        config: One row a param that differs.
        data: One row a fact that differs.
        versions: One row a distribution that differs.
        metrics: One row a metric: A, B, and B less A.
        comparison: A in the place of the champion, B of the challenger; None where their images cannot be compared.
        disagreements: One row a test image of which they say different things, the surest first: image (its index),
            label, and of each the class it says and its probability; and who is right.
        problems: One line each: what cannot be compared, and why.
    """

    a: Side
    b: Side
    config: pd.DataFrame
    data: pd.DataFrame
    versions: pd.DataFrame
    metrics: pd.DataFrame
    comparison: Comparison | None
    disagreements: pd.DataFrame
    problems: tuple[str, ...]


def read_side(letter: str, run: PastRun) -> Side:
    """Read what `diff` needs of a run."""
    logged = Logged(run)
    is_dirty = run.tags.get("git.dirty") == "true"
    patch = logged.look(PATCH) if is_dirty else None
    predictions = logged.read_table(PREDICTIONS)
    if predictions is not None and not _is_whole(predictions):
        predictions = None
        logged.miss(PREDICTIONS)
    side = Side(
        letter=letter,
        run=run,
        commit=run.tags.get("mlflow.source.git.commit", ""),
        is_dirty=is_dirty,
        patch="" if patch is None else patch.decode(errors="replace"),
        versions=logged.read_json("environment/versions.json") or {},
        history=logged.read_table("train/history.csv"),
        predictions=predictions,
        problems=(),
    )
    status = None if run.status == "FINISHED" else f"{side.title} is {run.status}: what it has is shown"
    missing = logged.describe_missing()
    problems = (status, f"{letter}: {missing}" if missing else None)
    return dataclasses.replace(side, problems=tuple(problem for problem in problems if problem))


def diff(a: Side, b: Side) -> Diff:
    """Compare two runs; what cannot be compared becomes a problem, and the rest is there."""
    problems = [*a.problems, *b.problems]
    if a.run.experiment_id != b.run.experiment_id:
        problems.append("A and B are in different experiments")
    is_same_data = a.run.tags.get("data.digest") == b.run.tags.get("data.digest")
    if not is_same_data:
        problems.append("A and B are of different data: their scores cannot be compared, nor their images")
    compared, disagreements = None, pd.DataFrame()
    if is_same_data and a.predictions is not None and b.predictions is not None:
        try:
            compared = comparison.compare(a.predictions, b.predictions)
            disagreements = disagree(a.predictions, b.predictions)
        except ValueError as error:
            problems.append(str(error))
    return Diff(
        a=a,
        b=b,
        config=_differences(a.run.params, b.run.params, what="param"),
        data=_differences(*({tag: side.run.tags.get(tag, "") for tag in _DATA_TAGS} for side in (a, b)), what="tag"),
        versions=_differences(a.versions, b.versions, what="package"),
        metrics=_subtract(a.run.metrics, b.run.metrics),
        comparison=compared,
        disagreements=disagreements,
        problems=tuple(problems),
    )


def disagree(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the images of which two tables of predictions say different things, as `Diff.disagreements` has them."""
    names = np.array(class_names(a))
    columns = [f"probability_{name}" for name in names]
    differs = (a["predicted"] != b["predicted"]).to_numpy()
    first, second = a[differs], b[differs]
    right = np.select(
        [first["label"] == first["predicted"], second["label"] == second["predicted"]], ["A", "B"], "neither"
    )
    found = pd.DataFrame(
        {
            "image": first["index"].to_numpy(),
            "label": names[first["label"]],
            "A": names[first["predicted"]],
            "A probability": first[columns].max(axis=1).to_numpy(),
            "B": names[second["predicted"]],
            "B probability": second[columns].max(axis=1).to_numpy(),
            "right": right,
        }
    )
    surest = (found["A probability"] + found["B probability"]).sort_values(ascending=False, kind="stable").index
    return found.loc[surest].reset_index(drop=True)


def _is_whole(predictions: pd.DataFrame) -> bool:
    return {"index", "label", "predicted"} <= set(predictions) and bool(class_names(predictions))


def _differences(a: Mapping[str, str], b: Mapping[str, str], *, what: str) -> pd.DataFrame:
    keys = sorted(key for key in {**a, **b} if a.get(key) != b.get(key))
    return pd.DataFrame(
        {what: keys, "A": [a.get(key, "") for key in keys], "B": [b.get(key, "") for key in keys]}, dtype=str
    )


def _subtract(a: Mapping[str, float], b: Mapping[str, float]) -> pd.DataFrame:
    keys = sorted({**a, **b})
    table = pd.DataFrame({"metric": keys, "A": [a.get(key) for key in keys], "B": [b.get(key) for key in keys]})
    table = table.astype({"A": float, "B": float})
    return table.assign(**{"B - A": table["B"] - table["A"]})
