"""Two runs side by side: configuration, data, code, versions, metrics, and the images on which they disagree."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mnist_pipeline.registry import comparison
from mnist_pipeline.registry.comparison import Comparison
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.tracking.record import Artifact, RunRecord, Tag, class_names

_DATA_TAGS = (Tag.DATA_REQUESTED, Tag.DATA_FALLBACK, Tag.DATA_SOURCES)


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        letter: A or B.
        patch: Uncommitted changes of the code, as far as they were kept.
        versions: Of packages, by name.
        digests: Of the data and its splits (SHA-256), by name.
        history: One row per epoch.
        predictions: One row per test image.
        problems: One line each: what is missing, and is None above.
    """

    letter: str
    run: RunRecord
    patch: str
    versions: Mapping[str, str] | None
    digests: Mapping[str, str] | None
    history: pd.DataFrame | None
    predictions: pd.DataFrame | None
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its letter and name."""
        return f"{self.letter} ({self.run.name})"

    @property
    def commit(self) -> str:
        """The git commit; empty if it is unknown."""
        return self.run.tags.get(Tag.GIT_COMMIT, "")

    @property
    def code(self) -> str:
        """What happened to uncommitted changes: none, kept, masked, lost or unknown."""
        return self.run.tags.get(Tag.GIT_PATCH, "none" if self.run.tags.get(Tag.GIT_DIRTY) == "false" else "unknown")

    @property
    def data(self) -> dict[str, str]:
        """Facts about the data: the digests of the splits, and their sources."""
        return {**(self.digests or {}), **{tag: self.run.tags[tag] for tag in _DATA_TAGS if tag in self.run.tags}}


@dataclass(frozen=True)
class Diff:
    """The differences between two runs, in tables with a column for each.

    Attributes:
        config: One row per param that differs.
        data: One row per fact that differs.
        versions: One row per distribution that differs; None if the versions of a run are unknown.
        metrics: One row per metric: A, B, and B less A.
        comparison: With A as champion and B as challenger; None if their predictions cannot be compared.
        disagreements: One row per test image on which they disagree, the most confident first: image (its index),
            label, the predicted class and its probability for each, and which is right.
        problems: One line each: what cannot be compared, and why.
    """

    a: Side
    b: Side
    config: pd.DataFrame
    data: pd.DataFrame
    versions: pd.DataFrame | None
    metrics: pd.DataFrame
    comparison: Comparison | None
    disagreements: pd.DataFrame
    problems: tuple[str, ...]


def read_side(letter: str, run: RunRecord) -> Side:
    """Read the parts of a run that `diff` compares."""
    logged = Logged(run)
    patch = logged.read_optional(Artifact.PATCH) if run.tags.get(Tag.GIT_DIRTY) == "true" else None
    predictions = None if run.is_untested else logged.read_predictions()
    versions = logged.read_texts(Artifact.VERSIONS)
    history = logged.read_history()
    digests = None if run.is_untested else logged.read_texts(Artifact.DIGESTS)
    status = (
        None if run.status == "FINISHED" else f"{letter} ({run.name}) is {run.status}: only what it has logged is shown"
    )
    missing = logged.describe_missing()
    return Side(
        letter=letter,
        run=run,
        patch="" if patch is None else patch.decode(errors="replace"),
        versions=versions,
        digests=digests,
        history=history,
        predictions=predictions,
        problems=tuple(problem for problem in (status, missing and f"{letter}: {missing}") if problem),
    )


def diff(a: Side, b: Side) -> Diff:
    """Compare two runs; what cannot be compared becomes a problem."""
    problems = [*a.problems, *b.problems]
    if a.run.experiment_id != b.run.experiment_id:
        problems.append("A and B are in different experiments")
    digests = [side.run.tags.get(Tag.DATA_DIGEST) for side in (a, b)]
    if None in digests:
        problems.append("the data of a run is unknown: their predictions cannot be compared")
    elif digests[0] != digests[1]:
        problems.append("A and B used different data: neither their scores nor their predictions can be compared")
    compared, disagreements = None, pd.DataFrame()
    if None not in digests and digests[0] == digests[1] and a.predictions is not None and b.predictions is not None:
        try:
            pair = comparison.compare(a.predictions, b.predictions), disagree(a.predictions, b.predictions)
        except ValueError as error:
            problems.append(str(error))
        else:
            compared, disagreements = pair
    return Diff(
        a=a,
        b=b,
        config=_differences(a.run.params, b.run.params, what="param"),
        data=_differences(a.data, b.data, what="of"),
        versions=None
        if a.versions is None or b.versions is None
        else _differences(a.versions, b.versions, what="package"),
        metrics=_subtract(a.run.metrics, b.run.metrics),
        comparison=compared,
        disagreements=disagreements,
        problems=tuple(problems),
    )


def disagree(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the images on which two tables of predictions disagree, as in `Diff.disagreements`.

    Raises:
        ValueError: Their classes differ.
    """
    names = np.array(class_names(a))
    if class_names(b) != list(names):
        raise ValueError("the two tables of predictions have different classes")
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
