"""A study in one page: what was searched, what was found, and whether to believe it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mnist_pipeline.looking import reproducing
from mnist_pipeline.looking.logged import Logged
from mnist_pipeline.looking.page import Code, Item, Page, Picture, Section, Table, Text, tabulate
from mnist_pipeline.looking.report import describe_run
from mnist_pipeline.looking.values import count, points, show
from mnist_pipeline.tracking import PastRun

MOST_TRIALS = 10
_PLOTS = {
    "optimization_history": "The value of every trial in the order of their numbers, and the best so far.",
    "learning_curves": "The value of every trial after each epoch; pruned trials end early.",
    "importances": "How much of the variation of the value each swept key explains.",
    "parallel_coordinates": "Every trial as a line through its values of the swept keys to its result.",
    "slices": "The value of the trials against each swept key.",
    "contours": "The value of the trials over each pair of swept keys.",
}
_VERDICT = "sweep/verdict.json"
_NO_RESULT = ("state", "run_id", "source", "reason")


def lay_out(logged: Logged, *, aliases: Sequence[str]) -> Page:
    """Return the report on the run that is the parent of a study's."""
    run = logged.run
    verdict = None if logged.look(_VERDICT) is None else logged.read_json(_VERDICT)
    return Page(
        title=f"The study {run.tags.get('study', run.name)}",
        lead=_sum_up(verdict),
        sections=(
            _describe(run, aliases),
            _show_trials(logged),
            _show_plots(logged),
            _show_verdict(logged, verdict),
            _reproduce(logged),
        ),
    )


def _sum_up(verdict: Any) -> str:
    if verdict is None:
        return "A search without a confirmation: its best trial may owe its place to luck."
    if verdict["winner"] == "baseline":
        return "The baseline stays: no candidate was better than it beyond doubt when trained again on fresh seeds."
    name = verdict["winner"].capitalize()
    return f"{name} is better than the baseline: trained again on fresh seeds, its interval excludes 0."


def _describe(run: PastRun, aliases: Sequence[str]) -> Section:
    first = describe_run(run, aliases)
    params = {key: value for key, value in run.params.items() if key.startswith("sweep.")}
    table = pd.DataFrame({"key": list(params), "value": list(params.values())}, dtype=str)
    return Section(first.title, (*first.items, tabulate("Settings and space of the search", table, show=show)))


def _show_trials(logged: Logged) -> Section:
    trials = logged.read_table("sweep/trials.parquet")
    if trials is None:
        return Section("Trials", (Text("The table of trials is missing.", is_warning=True),))
    counts = ", ".join(f"{number:,} {state}" for state, number in trials["state"].value_counts().items())
    is_ascending = logged.run.params.get("sweep.direction") == "minimize"
    best = trials[trials["state"] == "complete"].sort_values("value", ascending=is_ascending).head(MOST_TRIALS)
    shown = best[[column for column in best if column not in _NO_RESULT]].astype({"number": str})
    caption = f"The best {len(best)}, by {logged.run.params.get('sweep.metric', 'value')}"
    table = tabulate(caption, shown.rename(columns={"number": "trial"}), show=_show_value)
    return Section("Trials", (Text(f"{count(len(trials), 'trial')}: {counts}."), table))


def _show_plots(logged: Logged) -> Section:
    plots: list[Item] = []
    for name, alt in _PLOTS.items():
        content = logged.look(f"sweep/{name}.png")  # which of them there are depends on the trials
        if content is not None:
            plots += [Text(alt), Picture(alt, content)]
    return Section("Plots", tuple(plots) or (Text("None was logged."),))


def _show_verdict(logged: Logged, verdict: Any) -> Section:
    if verdict is None:
        return Section("Verdict", (Text("The best trials were not confirmed (sweep.confirm=null, or not yet)."),))
    rows = tuple(
        (one["name"], points(one["mean"]), points(one["low"]), points(one["high"])) for one in verdict["differences"]
    )
    table = Table(
        caption="Candidates less the baseline on fresh pairs of seeds, in points of a hundred",
        headings=("candidate", "mean", "from", "to"),
        rows=rows,
        numeric=(False, True, True, True),
    )
    alt = "How far each candidate is from the baseline, with its interval; the table below has the figures."
    preset = logged.read("sweep/preset/winner.yaml")
    items: list[Item] = [Text(_sum_up(verdict))]
    if rows:
        items += [logged.picture("sweep/verdict.png", alt=alt), table]
    items.append(Text(f"The intervals hold all together with {verdict['confidence']:.0%} confidence (Bonferroni)."))
    if preset is not None:
        items += [Text("The winner, as a preset:"), Code(preset.decode(errors="replace").rstrip())]
    return Section("Verdict", tuple(items))


def _reproduce(logged: Logged) -> Section:
    overrides = reproducing.read_overrides(logged) or []
    return Section(
        "How to reproduce it",
        (
            *reproducing.check_out(logged),
            Code(reproducing.command("sweep", overrides)),
            Text(
                "With one worker (sweep.num_workers=1) the trials are the same, to the bit; with more, what is "
                "proposed depends on which trial is done first."
            ),
        ),
    )


def _show_value(column: str, value: object) -> str:
    if column == "duration_sec" and isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
