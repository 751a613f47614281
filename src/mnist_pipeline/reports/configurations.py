"""Runs that differ only in their seeds are repetitions of one configuration. Pure functions of values.

The mean of the repetitions measures the configuration, and their spread measures chance.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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


Seeds = tuple[Hashable, ...]
"""A train seed and the seed of a split."""


@dataclass(frozen=True)
class Configuration:
    """Runs with the same values of some params.

    Attributes:
        values: Of those params, in the order of their keys.
        columns: Seeds and metrics, one value per run.
        is_seeded: Whether the runs differ only in their seeds.
    """

    name: str
    values: tuple[Hashable, ...]
    columns: Mapping[str, npt.NDArray[Any]]
    is_seeded: bool

    @property
    def num_runs(self) -> int:
        """How many runs it has."""
        return len(self.columns[SEED_KEYS[0]])

    def known(self, metric: str) -> npt.NDArray[np.float64]:
        """Return the known values of a metric."""
        values: npt.NDArray[np.float64] = self.columns[metric].astype(float)
        return values[~np.isnan(values)]

    def seed_values(self, metric: str) -> dict[Seeds, float]:
        """Return the known values of a metric by pair of seeds; none if the runs differ in more than their seeds."""
        if not self.is_seeded:
            return {}
        seeds = zip(*(self.columns[key].tolist() for key in SEED_KEYS), strict=True)
        pairs = [tuple(None if one != one else one for one in pair) for pair in seeds]  # NaN does not equal itself
        values = self.columns[metric].astype(float).tolist()
        return {pair: value for pair, value in zip(pairs, values, strict=True) if not math.isnan(value)}


def group(
    runs: pd.DataFrame, keys: Sequence[str], *, deciding: Sequence[str], metrics: Sequence[str]
) -> list[Configuration]:
    """Return the configurations of runs, in the order of their first runs.

    Args:
        runs: One row per run: deciding params and metrics.
        keys: Params whose values define a configuration.
        deciding: All params that decide a result.
        metrics: That the configurations are to have.
    """
    of_configuration = _number_groups(runs, keys)
    of_settings = _number_groups(runs, [key for key in deciding if key not in SEED_KEYS])
    order = np.argsort(of_configuration, kind="stable")
    starts = np.flatnonzero(np.diff(of_configuration[order], prepend=-1))
    parts = np.split(order, starts[1:])
    firsts = runs.iloc[order[starts]]
    values = list(firsts[list(keys)].itertuples(index=False, name=None)) if keys else [()]
    columns = {name: runs[name].to_numpy() for name in (*SEED_KEYS, *metrics)}
    return [
        Configuration(
            name=describe(keys, own),
            values=own,
            columns={name: column[part] for name, column in columns.items()},
            is_seeded=bool((of_settings[part] == of_settings[part[0]]).all()),
        )
        for own, part in zip(values, parts, strict=True)
    ]


def _number_groups(runs: pd.DataFrame, keys: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return the number of each run's group, by the values of some keys, in the order of the first runs."""
    if not keys:
        return np.zeros(len(runs), np.intp)
    return np.asarray(runs.groupby(list(keys), sort=False, dropna=False).ngroup(), dtype=np.intp)


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
    known = configuration.known(metric)
    low = high = math.nan
    values = _collapse(configuration.seed_values(metric))
    if len(values) > 1 and np.ptp(values) > _NO_SPREAD:
        _, low, high = find_interval(values, alpha=1 - CONFIDENCE)
    return {
        "mean": float(known.mean()) if len(known) else math.nan,
        "std": float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        "low": low,
        "high": high,
    }


def find_leads(leader: Configuration, configurations: Sequence[Configuration], metric: str) -> tuple[Lead, ...]:
    """Compare the leader with every other configuration seed by seed, as the confirmation of a sweep does."""
    values = [(one, one.seed_values(metric)) for one in configurations]
    comparable = [(one, known) for one, known in values if len(known) > 1]
    num_compared = len(list(itertools.combinations(comparable, 2)))
    ahead = leader.seed_values(metric)
    leads = []
    for other, behind in comparable:
        differences = _collapse({pair: value - behind[pair] for pair, value in ahead.items() if pair in behind})
        if other is not leader and len(differences) > 1 and np.ptp(differences) > _NO_SPREAD:
            interval = find_interval(differences, alpha=(1 - CONFIDENCE) / num_compared)
            leads.append(Lead(other.name, *interval, len(differences)))
    return tuple(leads)


def _collapse(values: Mapping[Seeds, float]) -> npt.NDArray[np.float64]:
    """Return values by pairs of seeds as independent values: one train seed on several splits counts as one."""
    by_seed: dict[Hashable, list[float]] = {}
    for (train_seed, *_), value in values.items():
        by_seed.setdefault(train_seed, []).append(value)
    is_crossed = 1 < len(by_seed) < len(values)
    return np.array([float(np.mean(one)) for one in by_seed.values()] if is_crossed else [*values.values()])
