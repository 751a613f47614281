"""Runs that differ only in their seeds are repetitions of one configuration. Pure functions of values.

The mean of the repetitions measures the configuration, and their spread measures chance.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mnist_pipeline.stats import find_interval

CONFIDENCE = 0.95
SEED_KEYS = ("train.seed", "data.split_seed")

GROUPS = {"model": "model.name", "train.optimizer": "train.optimizer", "train.schedule": "train.schedule"}
"""The params that say which option was chosen, by the beginnings of the keys that each option has for itself."""

ALL = "all"
"""Name of the only configuration if the runs do not differ."""

_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Lead:
    """The lead of the best configuration over another, for the seeds that both were trained with.

    Attributes:
        name: Of the other configuration.
        mean: Of the differences of the ranking metric.
        low, high: The interval of the true mean difference. It holds for all pairs of configurations at once with the
            confidence `CONFIDENCE`, which accounts for the choice of the best.
        num_pairs: Of seeds.
    """

    name: str
    mean: float
    low: float
    high: float
    num_pairs: int


@dataclass(frozen=True)
class Configuration:
    """Runs with the same values of some params.

    Attributes:
        values: Of those params, in the order of their keys.
        runs: One row per run: deciding params and metrics.
        is_seeded: Whether the runs differ only in their seeds.
    """

    name: str
    values: tuple[Hashable, ...]
    runs: pd.DataFrame
    is_seeded: bool

    def seed_values(self, metric: str) -> "pd.Series[float]":
        """Return the known values of a metric by pair of seeds; none if the runs differ in more than their seeds."""
        runs = self.runs if self.is_seeded else self.runs[:0]
        return runs.set_index(list(SEED_KEYS))[metric].dropna().astype(float)


def group(runs: pd.DataFrame, keys: Sequence[str], *, deciding: Sequence[str]) -> list[Configuration]:
    """Return the configurations of runs, in the order of their first runs.

    Args:
        runs: One row per run: deciding params and metrics.
        keys: Params whose values define a configuration.
        deciding: All params that decide a result.
    """
    grouped = runs.groupby(list(keys), sort=False, dropna=False) if keys else [((), runs)]
    others = [key for key in deciding if key not in SEED_KEYS]
    return [
        Configuration(
            name=describe(keys, values), values=values, runs=rows, is_seeded=len(rows[others].drop_duplicates()) == 1
        )
        for values, rows in grouped
    ]


def describe(keys: Sequence[str], values: Sequence[Hashable]) -> str:
    """Return values with the short names of their params; different values have different texts.

    A key that the chosen option does not have is left out.
    """
    names = short_names(keys)
    shown = [
        (key, value)
        for key, value in zip(keys, values, strict=True)
        if not (isinstance(value, float) and math.isnan(value) and _option_key(key) in keys)
    ]
    return " ".join(f"{names[key]}={_write(value)}" for key, value in shown) or ALL


def find_differing(params: pd.DataFrame) -> list[str]:
    """Return the params that differ, those that name an option first and the seeds last.

    The params that an option has for itself differ if they do among the runs that have chosen it.

    Args:
        params: One row per run.
    """
    differing = [str(key) for key in params if params[key].nunique(dropna=False) > 1]
    for key in list(differing):
        chosen = _option_key(key)
        if chosen in differing and key != chosen:
            among = params.groupby(chosen, dropna=False)[key].nunique(dropna=False)
            if among.max() == 1:
                differing.remove(key)
    return sorted(differing, key=lambda key: (key not in GROUPS.values(), key in SEED_KEYS, key))


def _option_key(key: str) -> str | None:
    """Return the param that names the option to which `key` belongs."""
    if key == "train.num_threads":  # its default is that of the model
        return GROUPS["model"]
    return next((option for group, option in GROUPS.items() if key.startswith(f"{group}.")), None)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last parts of each dotted key, as many as no other key has; of a name, what it is of."""
    parts = {key: key.removesuffix(".name").split(".") for key in keys}

    def shorten(key: str) -> str:
        for number in range(1, len(parts[key])):
            if [one[-number:] for one in parts.values()].count(parts[key][-number:]) == 1:
                return ".".join(parts[key][-number:])
        return ".".join(parts[key])

    return {key: shorten(key) for key in keys}


def _write(value: Hashable) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "none"
        short = f"{value:.10g}"
        return short if float(short) == value else repr(value)
    return str(value)


def summarise(configuration: Configuration, metric: str) -> dict[str, float]:
    """Return mean, standard deviation and the t interval of the mean (Student, 1908).

    There is no interval (NaN) for a single seed, for runs that differ in more than their seeds, or if all seeds agree
    exactly: on a small split that happens by chance.
    """
    known = configuration.runs[metric].dropna().astype(float)
    low = high = math.nan
    values = _collapse(configuration.seed_values(metric))
    if len(values) > 1 and np.ptp(values) > _NO_SPREAD:
        _, low, high = find_interval(values, alpha=1 - CONFIDENCE)
    return {"mean": known.mean(), "std": known.std(), "low": low, "high": high}


def find_leads(leader: Configuration, configurations: Sequence[Configuration], metric: str) -> tuple[Lead, ...]:
    """Compare the leader with every other configuration seed by seed, as the confirmation of a sweep does."""
    values = [(one, one.seed_values(metric)) for one in configurations]
    comparable = [(one, known) for one, known in values if len(known) > 1]
    num_compared = len(list(itertools.combinations(comparable, 2)))
    ahead = leader.seed_values(metric)
    leads = []
    for other, behind in comparable:
        common = ahead.index.intersection(behind.index)
        differences = _collapse(ahead.loc[common] - behind.loc[common])
        if other is not leader and len(differences) > 1 and np.ptp(differences) > _NO_SPREAD:
            interval = find_interval(differences, alpha=(1 - CONFIDENCE) / num_compared)
            leads.append(Lead(other.name, *interval, len(differences)))
    return tuple(leads)


def _collapse(values: "pd.Series[float]") -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return values by pairs of seeds as independent values: one train seed on several splits counts as one."""
    num_seeds = values.index.get_level_values(0).nunique()
    is_crossed = 1 < num_seeds < len(values)
    return np.asarray(values.groupby(level=0).mean() if is_crossed else values, dtype=float)
