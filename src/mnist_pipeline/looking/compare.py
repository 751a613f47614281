"""Many runs in one table: what differs between them, which is best, and how sure that is. Pure functions of values.

Runs that differ in nothing but their seeds are one configuration, tried several times: their mean says what it is
worth, their spread what luck is worth.
"""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from mnist_pipeline.errors import ConfigError
from mnist_pipeline.fingerprint import DECIDING_SECTIONS, UNDECIDING_KEYS
from mnist_pipeline.sweep import confirm
from mnist_pipeline.sweep.space import Direction
from mnist_pipeline.tracking import PastRun

CONFIDENCE = 0.95
SEED_KEYS = ("train.seed", "data.split_seed")
VALIDATION, TEST = "validation/accuracy", "test/accuracy"
METRICS = (
    *(VALIDATION, TEST, "validation/loss", "test/loss", "test/calibration_error", "train/accuracy", "train/loss"),
    *("time/train_sec", "time/total_sec", "model/num_parameters", "model/size_bytes"),
)
_SUMMARISED = (VALIDATION, TEST)


@dataclass(frozen=True)
class Lead:
    """How far the best configuration is ahead of another, over the seeds that both were trained with.

    Attributes:
        name: Of the other.
        mean: Of the differences of the ranking metric.
        low, high: The interval that holds the true mean difference: of all pairs of configurations at once with the
            confidence `CONFIDENCE`, so that choosing the best by looking is paid for.
        num_pairs: Of seeds.
    """

    name: str
    mean: float
    low: float
    high: float
    num_pairs: int


@dataclass(frozen=True)
class Comparison:
    """Runs in one table.

    Attributes:
        table: One row a run, the best first: run_id, name, kind, started (UTC), aliases, the params that differ,
            metrics.
        differing: The dotted keys of those params.
        ranked_by: The metric.
        groups: One row a configuration, the best first: name, the params that it is grouped by, num_seeds, and of each
            accuracy mean, std, low and high (its t interval; NaN for a single seed), and mean training time.
        leader: Name of the best configuration with several seeds; None where none has.
        leads: Of the leader against each other one that shares seeds with it.
        notes: What a reader must know.
    """

    table: pd.DataFrame
    differing: tuple[str, ...]
    ranked_by: str
    groups: pd.DataFrame
    leader: str | None
    leads: tuple[Lead, ...]
    notes: tuple[str, ...]


def compare(
    runs: Sequence[PastRun], *, aliases: Mapping[str, Sequence[str]], group_by: Sequence[str] | None = None
) -> Comparison:
    """Compare finished runs on the same data.

    Args:
        runs: At least one.
        aliases: Of the registered versions, by the id of the run.
        group_by: Keys of params, of which the last part will do; None: all that differ, but for the seeds.

    Raises:
        ConfigError: A key is no param of these runs.
    """
    params = pd.DataFrame([run.params for run in runs]).apply(_as_numbers)
    deciding = [
        key for key in map(str, params) if key.split(".")[0] in DECIDING_SECTIONS and key not in UNDECIDING_KEYS
    ]
    differing = tuple(sorted(key for key in deciding if params[key].nunique(dropna=False) > 1))
    metrics = pd.DataFrame([run.metrics for run in runs]).reindex(columns=list(METRICS)).astype(float)
    ranked_by = VALIDATION if metrics[VALIDATION].notna().any() else TEST
    about = pd.DataFrame(
        {
            "run_id": [run.run_id for run in runs],
            "name": [run.name for run in runs],
            "kind": [run.tags.get("kind", "") for run in runs],
            "started": pd.to_datetime([run.started_ms for run in runs], unit="ms", utc=True),
            "aliases": [", ".join(aliases.get(run.run_id, ())) for run in runs],
        }
    )
    commit = pd.Series([run.tags.get("mlflow.source.git.commit") for run in runs], name="commit")
    everything = pd.concat([about, params[deciding], metrics, commit], axis=1)
    # Of equal ones the older first: whoever trains a run a second time finds it below the first.
    order = everything.sort_values([ranked_by, "started"], ascending=[False, True], na_position="last")
    keys = [key for key in differing if key not in SEED_KEYS]
    if group_by is not None:
        keys = [_full_key(key, deciding) for key in group_by]
    distinct = order.drop_duplicates(deciding)  # the same training again has the same result, and is no further seed
    groups = _group(distinct, keys, ranked_by)
    seeded = groups.loc[groups[f"{ranked_by}_high"].notna(), "name"]
    leader = None if seeded.empty else str(seeded.iloc[0])
    return Comparison(
        table=order[[*about, *differing, *METRICS]].dropna(axis=1, how="all").reset_index(drop=True),
        differing=differing,
        ranked_by=ranked_by,
        groups=groups,
        leader=leader,
        leads=_leads(distinct, leader, keys, ranked_by),
        notes=_notes(order, distinct, ranked_by),
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, where no other has the same."""
    lasts = [key.split(".")[-1] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def _as_numbers(column: "pd.Series[str]") -> "pd.Series[str] | pd.Series[float]":
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().eq(column.notna()).all() else column


def _full_key(named: str, keys: Sequence[str]) -> str:
    found = [key for key in keys if named in (key, key.split(".")[-1])]
    if len(found) == 1:
        return found[0]
    nearest = difflib.get_close_matches(named, [*keys, *(key.split(".")[-1] for key in keys)], n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(keys)}"
    raise ConfigError(f"--group-by {named}: no param that decides a result; {hint}")


def _group(distinct: pd.DataFrame, keys: list[str], ranked_by: str) -> pd.DataFrame:
    rows = []
    for values, group in _groups(distinct, keys):
        row = {"name": _describe(keys, values), **dict(zip(keys, values, strict=True)), "num_seeds": len(group)}
        for metric in _SUMMARISED:
            row |= {f"{metric}_{name}": value for name, value in _summarise(group[metric]).items()}
        rows.append({**row, "time/train_sec_mean": group["time/train_sec"].mean()})
    return pd.DataFrame(rows).sort_values(f"{ranked_by}_mean", ascending=False, ignore_index=True)


def _groups(distinct: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    if not keys:
        return [((), distinct)]
    return list(distinct.groupby(keys, sort=False, dropna=False))


def _describe(keys: Sequence[str], values: Sequence[object]) -> str:
    names = short_names(keys)
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return " ".join(f"{names[key]}={value}" for key, value in zip(keys, shown, strict=True)) or "all"


def _summarise(values: "pd.Series[float]") -> dict[str, float]:
    """Return mean, standard deviation and the t interval of the mean (Student, 1908)."""
    known = values.dropna()
    half = math.nan
    if len(known) > 1:
        half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * known.std() / math.sqrt(len(known))
    mean = known.mean() if len(known) else math.nan
    return {"mean": mean, "std": known.std(), "low": mean - half, "high": mean + half}


def _leads(distinct: pd.DataFrame, leader: str | None, keys: list[str], ranked_by: str) -> tuple[Lead, ...]:
    """Compare the leader with every other, seed by seed, as the confirmation of a sweep does."""
    values = {
        _describe(keys, value): group.set_index(list(SEED_KEYS))[ranked_by].dropna()
        for value, group in _groups(distinct, keys)
    }
    comparable = {name: one for name, one in values.items() if one.index.is_unique and len(one) > 1}
    if leader is None or leader not in comparable:
        return ()
    num_compared = len(list(itertools.combinations(comparable, 2)))
    leads = []
    for name in comparable:
        common = comparable[leader].index.intersection(comparable[name].index)
        if name != leader and len(common) > 1:
            ahead, behind = (np.asarray(comparable[one].loc[common], dtype=float) for one in (leader, name))
            alpha = (1 - CONFIDENCE) / num_compared
            found = confirm.compare(
                behind.tolist(), {name: ahead.tolist()}, direction=Direction.maximize, alpha=alpha
            ).comparisons[0]
            leads.append(Lead(name, found.mean, found.low, found.high, len(common)))
    return tuple(leads)


def _notes(order: pd.DataFrame, distinct: pd.DataFrame, ranked_by: str) -> tuple[str, ...]:
    notes = []
    num_unranked = int(order[ranked_by].isna().sum())
    if ranked_by == TEST:
        notes.append("no run has a validation split: ranked by test accuracy, so the best is partly luck")
    elif num_unranked:
        notes.append(f"{num_unranked} without a validation split cannot be ranked: they stand at the end")
    if len(distinct) < len(order):
        notes.append(f"{len(order) - len(distinct)} repeat another run, seed and all: they count once among the seeds")
    if order["commit"].nunique(dropna=False) > 1:
        notes.append("the runs are of different commits: mnist-pipeline diff A B shows the code of two")
    return tuple(notes)
