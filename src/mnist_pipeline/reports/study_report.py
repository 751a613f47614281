"""The report on a study: the search, its result, and how certain it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mnist_pipeline.reports import reproducing
from mnist_pipeline.reports.configurations import GROUPS, short_names
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Code, Item, Page, Picture, Section, Table, Text, tabulate
from mnist_pipeline.reports.report import describe_run
from mnist_pipeline.reports.values import count, points, show
from mnist_pipeline.tracking.record import Artifact, RunRecord

MOST_TRIALS = 10
_PLOTS = {
    "optimization_history": "The value of every trial, in order, and the best so far.",
    "learning_curves": "The value of every trial after each epoch; pruned trials end early.",
    "importances": "How much of the variation of the value each swept key explains.",
    "parallel_coordinates": "Every trial as a line through its values of the swept keys to its result.",
    "slices": "The value of the trials against each swept key.",
    "contours": "The value of the trials over each pair of swept keys.",
}
_VERDICT = Artifact.VERDICT
_DIFFERENCE = {"name": str, "mean": float, "low": float, "high": float}
_SEQUENCE = {"looks": list, "detectable_gain": float, "power": float}
_NO_RESULT = ("state", "run_id", "source", "reason")


def lay_out(logged: Logged, *, aliases: Sequence[str], uri: str) -> Page:
    """Return the report on the parent run of a study; `uri` is that of the store."""
    run = logged.run
    settings = _read_settings(run)
    is_confirmed = run.is_finished and any(key.startswith("sweep.confirm") for key in settings)
    verdict = _read_verdict(logged) if is_confirmed else None
    sections = (
        Section("The sweep", _describe(run, aliases)),
        logged.section("Verdict", lambda logged: _show_verdict(logged, verdict, is_confirmed=is_confirmed)),
        logged.section("Trials", _show_trials),
        logged.section("Plots", _show_plots),
        Section("How to reproduce it", _reproduce(logged, uri)),
    )
    lead = _sum_up(verdict, is_confirmed=is_confirmed)
    return Page(title=f"The study {run.tags.get('study', run.name)}", lead=lead, sections=sections)


def _read_settings(run: RunRecord) -> dict[str, str]:
    return {key: value for key, value in sorted(run.settings.items()) if value not in ("null", "None")}


def _read_verdict(logged: Logged) -> dict[str, Any] | None:
    found = logged.read_json(_VERDICT)
    if found is None:
        return None
    kinds = {"winner": str, "differences": list, "confidence": float}
    if not _has(found, kinds) or not all(_has(one, _DIFFERENCE) for one in found["differences"]):
        logged.miss(_VERDICT)
        return None
    return found


def _has(found: object, kinds: Mapping[str, type]) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in kinds.items())


def _sum_up(verdict: Mapping[str, Any] | None, *, is_confirmed: bool) -> str:
    if verdict is None and is_confirmed:
        return "The verdict of the confirmation cannot be read."
    if verdict is None:
        return "A search without a confirmation: its best trial may be the best by chance."
    if verdict["winner"] == "baseline":
        return "The baseline stays: no candidate was significantly better when trained again on fresh seeds."
    name = verdict["winner"].capitalize()
    found = [one for one in verdict["differences"] if one["name"] == verdict["winner"]]
    ahead = "".join(
        f" by {points(one['mean'])} percentage points ({points(one['low'])} to {points(one['high'])})" for one in found
    )
    return f"{name} is better than the baseline{ahead}: trained again on fresh seeds, its interval excludes 0."


def _describe(run: RunRecord, aliases: Sequence[str]) -> tuple[Item, ...]:
    settings = _read_settings(run)
    table = pd.DataFrame({"key": list(settings), "value": list(settings.values())}, dtype=str)
    return (*describe_run(run, aliases), tabulate("Settings and space of the search", table, show=show))


def _show_trials(logged: Logged) -> tuple[Item, ...]:
    trials = logged.read_table(Artifact.TRIALS, columns=["number", "state", "value"])
    if trials is None:
        return (Text("The table of trials is missing.", is_warning=True),)
    counts = ", ".join(f"{number:,} {state}" for state, number in trials["state"].value_counts().items())
    is_ascending = logged.run.settings.get("sweep.direction") == "minimize"
    best = trials[trials["state"] == "complete"].sort_values("value", ascending=is_ascending).head(MOST_TRIALS)
    shown = best[[column for column in best if column not in _NO_RESULT]].astype({"number": str})
    caption = f"The best {len(best)}, by {logged.run.settings.get('sweep.metric', 'value')}"
    names = short_names([key for key in map(str, shown) if "." in key or key in GROUPS])
    table = tabulate(caption, shown.rename(columns={"number": "trial", **names}), show=_show_value)
    return Text(f"{count(len(trials), 'trial')}: {counts}."), table


def _show_plots(logged: Logged) -> tuple[Item, ...]:
    plots: list[Item] = []
    for option in ("", *_list_options(logged)):
        for name, alt in _PLOTS.items():
            path = f"sweep/{name}_{option}.png" if option else f"sweep/{name}.png"
            content = logged.read_optional(path)  # the plots depend on the trials
            if content is not None:
                text = f"{option}: {alt}" if option else alt
                plots += [Text(text), Picture(text, content)]
    return tuple(plots) or (Text("None was logged."),)


def _list_options(logged: Logged) -> list[str]:
    """Return the options that the trials chose from, such as model=conv."""
    trials = logged.read_table(Artifact.TRIALS, columns=["number"])
    if trials is None:
        return []
    return [f"{group}={name}" for group in GROUPS if group in trials for name in trials[group].dropna().unique()]


def _show_verdict(logged: Logged, verdict: Mapping[str, Any] | None, *, is_confirmed: bool) -> tuple[Item, ...]:
    if verdict is None:
        text = f"{_VERDICT} is missing." if is_confirmed else "The best trials were not confirmed."
        return (Text(text, is_warning=is_confirmed),)
    table = _tabulate(
        "Candidates less the baseline on fresh pairs of seeds, in percentage points", verdict["differences"]
    )
    alt = "The difference of each candidate from the baseline, with its interval; the table below has the figures."
    preset = logged.read(Artifact.WINNER_PRESET)
    items: list[Item] = [Text(_sum_up(verdict, is_confirmed=True))]
    if table.rows:
        items += [logged.picture(Artifact.VERDICT_PICTURE, alt=alt), table]
    items.append(Text(f"All intervals hold together with {verdict['confidence']:.0%} confidence (Bonferroni)."))
    if _has(verdict, _SEQUENCE) and len(verdict["looks"]) > 1:
        looks = [one for look in verdict["looks"] for one in look if _has(one, _DIFFERENCE)]
        items.append(_tabulate("The same, look by look; what is clear gets no more pairs", looks))
    if _has(verdict, _SEQUENCE):
        gain = points(verdict["detectable_gain"])
        items.append(
            Text(f"A difference of about {gain} percentage points is found with {verdict['power']:.0%} probability.")
        )
    if preset is not None:
        items += [Text("The winner, as a preset:"), Code(preset.decode(errors="replace").rstrip())]
    return tuple(items)


def _tabulate(caption: str, differences: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of comparisons; those of earlier versions do not say how many pairs there were."""
    return Table(
        caption=caption,
        headings=("candidate", "pairs", "mean", "from", "to", "found"),
        rows=tuple(
            (
                one["name"],
                str(one.get("num_pairs", "")),
                *(points(one[key]) for key in ("mean", "low", "high")),
                str(one.get("outcome", "")),
            )
            for one in differences
        ),
        numeric=(False, True, True, True, True, False),
    )


def _reproduce(logged: Logged, uri: str) -> tuple[Item, ...]:
    overrides = reproducing.read_overrides(logged)
    if overrides is None:
        return (Text("Its overrides are unknown.", is_warning=True),)
    return (
        *reproducing.check_out(logged, uri),
        Code(reproducing.command("sweep", overrides)),
        Text(
            "With one worker (sweep.num_workers=1) the trials are the same, bit for bit; with more, the proposals "
            "depend on which trial ends first."
        ),
    )


def _show_value(column: str, value: object) -> str:
    if column == "duration_sec" and isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
