"""A reproduction as a page: what has changed since the run, and whether the result is the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from mnist_pipeline.pipeline.verdict import Finding, Verdict
from mnist_pipeline.reports import reproducing
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Item, Page, Section, Table, Text
from mnist_pipeline.tracking.record import Artifact, RunRecord, Tag

_WORDS = {True: "identical", False: "different", None: "unknown"}


def lay_out_changes(original: RunRecord, changes: Sequence[Finding], *, uri: str) -> Page:
    """Return what has changed since a run, and how to bring its code and its versions back."""
    sections = [Section("What decides the result, then and now", (_tabulate(changes),))]
    if any(change.part in ("code", "versions") and not change.is_same for change in changes):
        back = (*reproducing.check_out(Logged(original), uri), Text("make train sets up that commit's versions."))
        sections.append(Section("How to bring the code and the versions of the run back", back))
    lead = "Nothing that decides the result has changed." if all(one.is_same for one in changes) else _name(changes)
    return Page(title=f"{original.name}, trained again", lead=lead, sections=tuple(sections))


def lay_out_results(original: RunRecord, verdict: Verdict) -> Page:
    """Return how the result of a reproduction compares with the original's."""
    lead = (
        f"{original.label} is reproduced: every bit of the result is the same."
        if verdict.is_identical
        else f"{original.label} is not reproduced."
    )
    section = Section("The result, then and now", (_tabulate(verdict.results),))
    return Page(title=original.name, lead=lead, sections=(section,))


def show(logged: Logged) -> tuple[Item, ...]:
    """Return the last verdict on a run, for its report; empty if it was never reproduced."""
    if Tag.VERDICT not in logged.run.tags:
        return ()
    found = logged.read_json(Artifact.REPRODUCTION)
    if found is None:
        return (Text("The verdict of its reproduction cannot be read.", is_warning=True),)
    own = logged.run.run_id
    which = f"Run {found['original']}" if found["reproduction"] == own else "This run"
    text = f"{which} was trained again as run {found['reproduction']}: {_WORDS[bool(found['is_identical'])]}."
    return (Text(text), _tabulate([_read(one) for one in (*found["changes"], *found["results"])]))


def _read(found: Mapping[str, Any]) -> Finding:
    return Finding(str(found["part"]), found["is_same"], str(found["detail"]))


def _tabulate(findings: Sequence[Finding]) -> Table:
    rows = tuple((one.part, _WORDS[one.is_same], one.detail) for one in findings)
    return Table("Then against now", ("part", "verdict", "difference"), rows, (False, False, False))


def _name(changes: Sequence[Finding]) -> str:
    changed = [one.part for one in changes if one.is_same is False]
    unknown = [one.part for one in changes if one.is_same is None]
    parts = [f"changed since: {', '.join(changed)}"] * bool(changed) + [f"unknown: {', '.join(unknown)}"] * bool(
        unknown
    )
    return f"{'; '.join(parts).capitalize()}."
