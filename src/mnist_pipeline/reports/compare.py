"""Many runs in one table: their differences, the best one, and how certain that is. Pure functions of values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mnist_pipeline.pipeline.fingerprint import is_deciding
from mnist_pipeline.registry.candidates import SPLIT_KEYS
from mnist_pipeline.reports import configurations
from mnist_pipeline.reports.configurations import SEED_KEYS, Lead
from mnist_pipeline.reports.values import count, show
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.nearest import nearest
from mnist_pipeline.tracking.record import Metric, RunRecord, Tag

VALIDATION, TEST = Metric.VALIDATION_ACCURACY, Metric.TEST_ACCURACY
METRICS = (
    *(
        VALIDATION,
        TEST,
        Metric.VALIDATION_LOSS,
        Metric.TEST_LOSS,
        Metric.CALIBRATION_ERROR,
        Metric.TRAIN_ACCURACY,
        Metric.TRAIN_LOSS,
    ),
    *(Metric.TRAIN_SEC, Metric.TOTAL_SEC, Metric.NUM_PARAMETERS, Metric.MODEL_BYTES),
)
_SUMMARISED = (VALIDATION, TEST)
_CODE = "code"  # a key beside the params, for runs with the same params but different code


@dataclass(frozen=True)
class Comparison:
    """Runs in one table.

    Attributes:
        table: One row per run, those of the most frequent validation split first, and of each split the best first:
            run_id, name, kind, started (UTC), aliases, the params that differ, metrics.
        differing: The dotted keys of those params.
        ranked_by: The metric.
        groups: One row per configuration, the best first: name, the params that it is grouped by, num_runs, for each
            accuracy mean, std, low and high (the t interval of the mean over seeds; NaN if there is none), and the mean
            training time.
        leader: Name of the best configuration with several seeds; None if there is none.
        leads: Of the leader over each other configuration that shares seeds with it.
        notes: Caveats for the reader.
    """

    table: pd.DataFrame
    differing: tuple[str, ...]
    ranked_by: str
    groups: pd.DataFrame
    leader: str | None
    leads: tuple[Lead, ...]
    notes: tuple[str, ...]


def compare(
    runs: Sequence[RunRecord], *, aliases: Mapping[str, Sequence[str]], group_by: Sequence[str] | None = None
) -> Comparison:
    """Compare finished runs on the same data.

    Args:
        runs: At least one.
        aliases: Of the registered versions, by the id of the run.
        group_by: Keys of params, or their last parts; None: all that differ, except for the seeds.

    Raises:
        ConfigError: A key is not a param of these runs.
        UserError: No run has an accuracy.
    """
    params = pd.DataFrame([run.params for run in runs]).apply(_as_numbers)
    deciding = [key for key in map(str, params) if is_deciding(key)]
    deciding += [key for key in SEED_KEYS if key not in deciding]
    params = params.reindex(columns=deciding)
    differing = tuple(configurations.find_differing(params))
    metrics = pd.DataFrame([run.metrics for run in runs]).reindex(columns=list(METRICS)).astype(float)
    metrics = metrics.replace([math.inf, -math.inf], math.nan)
    ranked_by = VALIDATION if metrics[VALIDATION].notna().any() else TEST
    if metrics[ranked_by].isna().all():
        raise UserError(f"nothing to compare: none of {len(runs)} runs has logged {VALIDATION} or {TEST}")
    about = pd.DataFrame(
        {
            "run_id": [run.run_id for run in runs],
            "name": [run.name for run in runs],
            Tag.KIND: [run.tags.get(Tag.KIND, "") for run in runs],
            "started": pd.to_datetime([run.started_ms for run in runs], unit="ms", utc=True),
            "aliases": [", ".join(aliases.get(run.run_id, ())) for run in runs],
            _CODE: [_describe_code(run) for run in runs],
            Tag.TRAINING_FINGERPRINT: [run.tags.get(Tag.TRAINING_FINGERPRINT, "") for run in runs],
        }
    )
    everything = pd.concat([about, params, metrics], axis=1).sort_values("started", kind="stable")
    keys = [key for key in differing if key not in SEED_KEYS]
    if group_by is not None:
        keys = list(dict.fromkeys(_full_key(key, deciding) for key in group_by))
    distinct, has_codes, notes = _drop_repetitions(everything, deciding)
    if has_codes:
        keys, deciding = [*keys, _CODE], [*deciding, _CODE]
    found = configurations.group(distinct, keys, deciding=deciding, metrics=METRICS)
    groups = _tabulate(found, keys, ranked_by)
    seeded = groups.loc[groups[f"{ranked_by}_high"].notna(), "name"]
    leader = next((one for one in found if not seeded.empty and one.name == seeded.iloc[0]), None)
    order, split_notes = _rank(everything, ranked_by)
    shown = [*about.columns[:5], *differing, *METRICS]
    return Comparison(
        table=order[shown].dropna(axis=1, how="all").reset_index(drop=True),
        differing=differing,
        ranked_by=ranked_by,
        groups=groups,
        leader=leader.name if leader else None,
        leads=configurations.find_leads(leader, found, ranked_by) if leader else (),
        notes=(*split_notes, *notes, *_notes(order, ranked_by, are_all_seeded=all(one.is_seeded for one in found))),
    )


def _rank(runs: pd.DataFrame, ranked_by: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs in their order, and what is to be said about it.

    Accuracies on two validation splits cannot be ranked: one of them may be easier.
    """
    best_first = runs.sort_values(ranked_by, ascending=False, na_position="last", kind="stable")
    keys = [key for key in SPLIT_KEYS if key in runs and ranked_by == VALIDATION]
    known = [key for key in keys if runs[key].nunique(dropna=False) > 1]
    if not known:
        return best_first, []
    splits = best_first[known].apply(tuple, axis=1)
    is_ranked = best_first[ranked_by].notna()
    sizes = splits[is_ranked].value_counts()
    place = {split: number for number, split in enumerate(sizes.index)}
    order = best_first.loc[splits.map(place).where(is_ranked, len(place)).sort_values(kind="stable").index]
    first = ", ".join(f"{key}={show(key, value)}" for key, value in zip(known, sizes.index[0], strict=True))
    note = f"ranked within each validation split: first the {sizes.iloc[0]} with {first}, then {len(sizes) - 1} others"
    return order, [note] if len(sizes) > 1 else []


def _drop_repetitions(runs: pd.DataFrame, deciding: Sequence[str]) -> tuple[pd.DataFrame, bool, list[str]]:
    """Return the runs that are not repetitions, whether some of them differ only in their code, and notes."""
    notes = []
    # A repeated training has the same result, and is not another seed.
    distinct = runs.drop_duplicates([*deciding, Tag.TRAINING_FINGERPRINT])
    if len(distinct) < len(runs):
        num_repeated = len(runs) - len(distinct)
        notes.append(
            "1 run repeats another exactly and is counted once"
            if num_repeated == 1
            else f"{num_repeated} runs repeat others exactly and are counted once"
        )
    has_codes = bool(distinct.duplicated(deciding).any())
    if has_codes:  # other parts of the training fingerprint: code and versions
        with_code = [*deciding, _CODE]
        num_same = int(distinct.duplicated(with_code).sum())
        if num_same:
            notes.append(
                f"{count(num_same, 'run')} with only other versions or other uncommitted code than another: not counted"
            )
        distinct = distinct.drop_duplicates(with_code)
    return distinct, has_codes, notes


def _describe_code(run: RunRecord) -> str:
    commit = run.tags.get(Tag.GIT_COMMIT, "unknown")[:7]
    is_changed = run.tags.get(Tag.GIT_PATCH, run.tags.get(Tag.GIT_DIRTY)) in ("kept", "masked", "lost", "true")
    return f"{commit}+" if is_changed else commit


def _as_numbers(column: "pd.Series[str]") -> "pd.Series[str] | pd.Series[float]":
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().eq(column.notna()).all() else column


def _full_key(named: str, keys: Sequence[str]) -> str:
    names = configurations.short_names(keys)
    found = [key for key in keys if named in (key, key.split(".")[-1], names[key])]
    if len(found) == 1:
        return found[0]
    near = nearest(named, names.values()) or nearest(named, keys)
    hint = f"did you mean {near}?" if near else f"expected some of {', '.join(names.values())}"
    if found:
        hint = f"this is ambiguous, expected {' or '.join(found)}"
    raise ConfigError(f"--group-by {named}: not a param that decides a result; {hint}")


def _tabulate(found: Sequence[configurations.Configuration], keys: Sequence[str], ranked_by: str) -> pd.DataFrame:
    rows = []
    for one in found:
        row = {"name": one.name, **dict(zip(keys, one.values, strict=True)), "num_runs": one.num_runs}
        for metric in _SUMMARISED:
            row |= {f"{metric}_{name}": value for name, value in configurations.summarise(one, metric).items()}
        train_sec = one.known(Metric.TRAIN_SEC)
        rows.append({**row, "time/train_sec_mean": float(train_sec.mean()) if len(train_sec) else math.nan})
    table = pd.DataFrame(rows)
    return table.sort_values(f"{ranked_by}_mean", ascending=False, na_position="last", ignore_index=True)


def _notes(order: pd.DataFrame, ranked_by: str, *, are_all_seeded: bool) -> tuple[str, ...]:
    notes = []
    num_unranked = int(order[ranked_by].isna().sum())
    if ranked_by == TEST:
        notes.append("no run has a validation split: ranked by test accuracy, so the best is partly chance")
    elif num_unranked:
        notes.append(
            f"{num_unranked} without a validation split, or with a validation accuracy that is not a number, cannot be "
            "ranked: they come last"
        )
    if not are_all_seeded:
        notes.append("configurations whose runs differ in more than their seeds have no interval")
    if ranked_by == VALIDATION and {"final", "train"} <= set(order[Tag.KIND]):
        notes.append(
            "the final run of a sweep was selected by validation accuracy: its validation accuracy is optimistic"
        )
    if order[_CODE].nunique() > 1:
        notes.append("these runs come from different code: diff A B shows what changed between two of them")
    return tuple(notes)
