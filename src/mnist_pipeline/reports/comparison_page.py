"""A comparison as a page: its result, the runs, the configurations with their intervals, the figures."""

import dataclasses
import math
import re
from collections.abc import Sequence
from functools import partial

import pandas as pd

from mnist_pipeline.reports.compare import TEST, Comparison
from mnist_pipeline.reports.configurations import ALL, CONFIDENCE, SEED_KEYS, short_names
from mnist_pipeline.reports.page import Page, Picture, Section, Table, Text, tabulate
from mnist_pipeline.reports.values import count, points, show
from mnist_pipeline.tracking.record import Metric

_ADVICE = (
    "To see whether it is better than the others, train each with the same two or more seeds: "
    'make train ARGS="-m train.seed=0,1,2 ...".'
)
_SHOWN_METRICS = (Metric.TRAIN_SEC, Metric.MODEL_BYTES)


def lay_out(comparison: Comparison, *, top: int | None, notes: Sequence[str], with_figures: bool) -> Page:
    """Return the page of a comparison, with the best `top` runs and configurations; None: all."""
    said = tuple(Text(f"Note: {note}.") for note in (*comparison.notes, *notes))
    sections = [Section("Runs", (_tabulate_runs(comparison, top), *said))]
    if len(comparison.groups) > 1 or comparison.groups["num_runs"].max() > 1:
        sections.append(Section("Seeds together", (_tabulate_groups(comparison, top), Text(_explain(comparison)))))
    if with_figures:
        pictures = tuple(draw_figures(comparison).values())
        sections.append(
            Section("Figures", pictures or (Text("The runs do not differ in anything that can be drawn."),))
        )
    return Page(title=f"{len(comparison.table):,} runs compared", lead=describe(comparison), sections=tuple(sections))


def describe(comparison: Comparison) -> str:
    """Return in a sentence which configuration is best, by how much, and how certain that is."""
    groups, metric = comparison.groups, comparison.ranked_by
    means = dict(zip(groups["name"], groups[f"{metric}_mean"], strict=True))
    best = groups.iloc[0]

    def call(name: str) -> str:
        return f"{'' if name == ALL else f'{name}, '}mean {metric.replace('/', ' ')} {means[name]:.4f}"

    if len(groups) == 1:
        half = best[f"{metric}_high"] - best[f"{metric}_mean"]
        interval = "" if math.isnan(half) else f" ± {half:.4f} ({CONFIDENCE:.0%} interval)"
        return f"One configuration, {count(best['num_runs'], 'run')}: {call(best['name'])}{interval}."
    first = ""
    if best["name"] != comparison.leader:
        reason = (
            "a single seed cannot separate skill from chance"
            if best["num_runs"] == 1
            else "how much of it is chance is unknown"
        )
        first = f"Highest: {call(best['name'])}, but {reason}. "
    if not comparison.leads or comparison.leader is None:
        return (first or f"Best: {call(str(best['name']))}. ") + _ADVICE
    lead = min(comparison.leads, key=lambda lead: lead.mean)
    verdict = "more than chance" if lead.low > 0 else "this may be chance; train more seeds"
    return (
        f"{first}Best{' of several seeds' if first else ''}: {call(comparison.leader)}. Ahead of {lead.name} by "
        f"{points(lead.mean)} points ({CONFIDENCE:.0%} interval {points(lead.low)} to {points(lead.high)}, "
        f"{count(lead.num_pairs, 'seed')}): {verdict}."
    )


def draw_figures(comparison: Comparison) -> dict[str, Picture]:
    """Draw accuracy against every numeric param that differs, and against training time; by file name."""
    from mnist_pipeline.reports import figures  # imported here, because the tables need not wait for matplotlib

    table, metric = comparison.table, comparison.ranked_by
    keys = [key for key in comparison.differing if key not in SEED_KEYS and pd.api.types.is_numeric_dtype(table[key])]
    drawn: dict[str, Picture] = {}
    for key in (*keys, Metric.TRAIN_SEC):
        known = table[table[key].notna() & table[metric].notna()] if key in table else table[:0]
        if not known.empty:
            name = "training time in seconds" if key == Metric.TRAIN_SEC else key
            alt = f"{metric} against {name}, {count(len(known), 'run')}: {_describe_range(known, key, metric)}"
            draw = partial(figures.draw_against, known[key], known[metric], of=name)
            drawn[f"accuracy_by_{name.split('.')[-1].replace(' ', '_')}"] = Picture(alt, draw)
    return drawn


def _tabulate_runs(comparison: Comparison, top: int | None) -> Table:
    table = comparison.table.head(top) if top else comparison.table
    accuracies = dict.fromkeys((comparison.ranked_by, TEST))
    # The least important columns come last, because a narrow screen hides them.
    columns = [key for key in (*accuracies, *comparison.differing, *_SHOWN_METRICS) if key in table]
    shown = table[["name", *columns]].copy()
    if not comparison.table["name"].is_unique:
        shown.insert(1, "id", table["run_id"].str[:8])
    if table["aliases"].any():
        shown.insert(1, "alias", table["aliases"].str.replace(r"[^ ,]*@", "", regex=True))
    caption = f"The best {len(table):,} of {len(comparison.table):,}" if len(table) < len(comparison.table) else "All"
    return _rename(tabulate(f"{caption}, by {comparison.ranked_by}", shown, show=show), comparison)


def _tabulate_groups(comparison: Comparison, top: int | None) -> Table:
    groups = comparison.groups.head(top) if top else comparison.groups
    leads = {lead.name: lead for lead in comparison.leads}
    shown = pd.DataFrame({"configuration": groups["name"], "runs": groups["num_runs"]})
    for metric in dict.fromkeys((comparison.ranked_by, TEST)):
        if groups[f"{metric}_mean"].notna().any():
            means, highs = groups[f"{metric}_mean"], groups[f"{metric}_high"]
            # The intervals are symmetric about the mean; the output files have both ends.
            shown[metric] = [
                "" if math.isnan(mean) else f"{mean:.4f}" if math.isnan(high) else f"{mean:.4f} ± {high - mean:.4f}"
                for mean, high in zip(means, highs, strict=True)
            ]
        if metric == comparison.ranked_by and leads:
            found = [leads.get(name) for name in groups["name"]]
            shown["leader ahead, points"] = [
                f"{points(lead.mean)} ± {100 * (lead.high - lead.mean):.2f}" if lead else "" for lead in found
            ]
    for metric in dict.fromkeys((comparison.ranked_by, TEST)):
        if metric in shown:
            shown[f"{metric.split('/')[0]} spread"] = groups[f"{metric}_std"].map("{:.4f}".format, na_action="ignore")
    shown[Metric.TRAIN_SEC] = groups["time/train_sec_mean"]
    caption = f"Mean, standard deviation (spread) and t interval (±) over seeds, by {comparison.ranked_by}"
    numeric = (False, *(True for _ in shown.columns[1:]))
    return _rename(dataclasses.replace(tabulate(caption, shown, show=show), numeric=numeric), comparison)


def _rename(table: Table, comparison: Comparison) -> Table:
    names = {
        **short_names(comparison.differing),
        **{Metric.TRAIN_SEC: "seconds", Metric.MODEL_BYTES: "model bytes"},
    }
    # Headings without underscores and slashes can wrap on a narrow screen.
    headings = tuple(re.sub("[/_]", " ", names.get(heading, heading)) for heading in table.headings)
    return Table(table.caption, headings, table.rows, table.numeric)


def _explain(comparison: Comparison) -> str:
    text = (
        f"An interval holds the true mean over seeds with {CONFIDENCE:.0%} confidence. There is no interval for a "
        "single seed, or for seeds with identical results."
    )
    if comparison.leads:
        text += (
            " The leader is the best configuration with several seeds. Its lead is measured seed by seed. These "
            f"intervals hold for all pairs of configurations at once with {CONFIDENCE:.0%} confidence, which accounts "
            "for the choice of the best."
        )
    return text


def _describe_range(table: pd.DataFrame, key: str, metric: str) -> str:
    best = table.sort_values(metric).iloc[-1]
    low, high = table[metric].min(), table[metric].max()
    return f"accuracies from {low:.4f} to {high:.4f}, the best at {show(key, float(best[key]))}."
