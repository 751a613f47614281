"""A diff as a page."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from mnist_pipeline.pipeline import patch, provenance
from mnist_pipeline.reports.configurations import CONFIDENCE
from mnist_pipeline.reports.diff import Diff, Side
from mnist_pipeline.reports.page import Code, Item, Lines, Page, Picture, Section, Table, Text, tabulate
from mnist_pipeline.reports.values import count, points, show, when
from mnist_pipeline.system import paths
from mnist_pipeline.tracking.record import Artifact, Metric, Tag

MOST_PICTURES = 24
_MOST_PATCH_LINES = 400
_NOT_IN_TABLE = (Metric.EPOCH_SEC,)


def lay_out(diff: Diff, aliases: dict[str, list[str]], images: npt.NDArray[np.uint8] | None) -> Page:
    """Return the page of a diff; `images`, uint8 (n, height, width), are the test split, if it is available."""
    return Page(
        title=f"A: {diff.a.run.name}, B: {diff.b.run.name}",
        lead=describe(diff),
        sections=(
            Section(
                "The two runs",
                (_tabulate_runs(diff, aliases), *(Text(text, is_warning=True) for text in diff.problems)),
            ),
            Section("Configuration", (_tabulate("Params that differ", diff.config, "The same."),)),
            Section("Data", _show_data(diff)),
            Section("Code", _show_code(diff)),
            Section("Versions", (_show_versions(diff),)),
            Section("Metrics", _show_metrics(diff)),
            Section("Images on which they disagree", _show_images(diff, images)),
        ),
    )


def describe(diff: Diff) -> str:
    """Return in a sentence which run is better on the test images, by how much, and how certain that is."""
    compared = diff.comparison
    if compared is None and (diff.a.run.is_untested or diff.b.run.is_untested):
        return "A run of a sweep is not scored on the test split: there are no predictions to compare."
    if compared is None:
        return "Their predictions cannot be compared: see above."
    if diff.a.run.run_id == diff.b.run.run_id:
        return "A and B are the same run."
    ahead, behind, sign = ("A", "B", -1) if compared.difference < 0 else ("B", "A", 1)
    low, high = sorted(sign * end for end in compared.interval(CONFIDENCE))
    p_value = compared.two_sided_p_value
    verdict = (
        f"{ahead} is better than {behind}" if p_value < 1 - CONFIDENCE else "it is not clear which of the two is better"
    )
    num_more = abs(compared.num_gained - compared.num_lost)
    return (
        f"{ahead} gets {num_more:,} more of {compared.num_images:,} test images right than {behind}: "
        f"{points(sign * compared.difference)} points ({CONFIDENCE:.0%} interval {points(low)} to {points(high)}), "
        f"p = {p_value:.2g} (exact McNemar test, two-sided): {verdict}. This holds for these two trained models; to "
        "compare their settings, train several seeds (compare). It spends no budget and promotes nothing."
    )


def _tabulate_runs(diff: Diff, aliases: dict[str, list[str]]) -> Table:
    sides = (diff.a, diff.b)
    facts = {
        "name": [side.run.name for side in sides],
        "id": [side.run.run_id for side in sides],
        Tag.KIND: [side.run.tags.get(Tag.KIND, "") for side in sides],
        "status": [side.run.status for side in sides],
        "alias": [", ".join(aliases.get(side.run.run_id, ())) for side in sides],
        "started": [when(side.run.started_ms) for side in sides],
        "commit": [_describe_commit(side) for side in sides],
    }
    rows = tuple((name, *values) for name, values in facts.items() if any(values))
    return Table("What was compared", ("", "A", "B"), rows, (False, False, False))


def _describe_commit(side: Side) -> str:
    if not side.commit:
        return "unknown"
    return side.commit[:12] + ("" if side.code == "none" else " with changes")


def _tabulate(caption: str, table: pd.DataFrame, otherwise: str) -> Item:
    return Text(otherwise) if table.empty else tabulate(caption, table, show=show)


def _show_data(diff: Diff) -> tuple[Item, ...]:
    if diff.a.digests is None or diff.b.digests is None:
        return (Text("The splits of a run are unknown."),)
    items: list[Item] = [Text("Identical in every split.")] if diff.a.digests == diff.b.digests else []
    return (*items, *([] if diff.data.empty else [tabulate("What differs", diff.data, show=show)]))


def _show_versions(diff: Diff) -> Item:
    if diff.versions is None:
        return Text("The versions of a run are unknown.")
    return _tabulate("Packages that differ", diff.versions, "The same.")


def _show_code(diff: Diff) -> tuple[Item, ...]:
    a, b = diff.a, diff.b
    items: list[Item] = []
    if not a.commit or not b.commit:
        items.append(Text("The commit of a run is unknown: it did not run from a git checkout."))
    elif a.commit == b.commit:
        items.append(Text(f"The same commit, {a.commit[:12]}."))
    else:
        root = paths.checkout()
        stat = provenance.commit_stat(root, a.commit, b.commit) if root else ""
        command = f"git diff {a.commit[:12]} {b.commit[:12]} -- {' '.join(patch.CODE_PATHS)}"
        items.append(Code(f"$ {command}\n{stat}".rstrip()))
    if a.patch and a.patch == b.patch and "masked" not in (a.code, b.code):
        items.append(Text(f"Both ran with the same uncommitted changes ({Artifact.PATCH})."))
        return tuple(items)
    for side in (a, b):
        if side.patch:
            lines = patch.mask(side.patch).splitlines()
            what = f"{Artifact.PATCH}, {count(len(lines), 'line')}"
            items.append(Text(f"{side.title} ran with uncommitted changes ({what}):"))
            items.append(Code("\n".join(lines[:_MOST_PATCH_LINES])))
        elif side.commit and side.code != "none":
            items.append(Text(f"{side.title} ran with uncommitted changes that were not kept.", is_warning=True))
    return tuple(items)


def _show_metrics(diff: Diff) -> tuple[Item, ...]:
    table = diff.metrics[~diff.metrics["metric"].isin(_NOT_IN_TABLE)]
    rows = tuple(
        (
            metric,
            *(_show_figure(metric, row[side]) for side in ("A", "B")),
            _show_figure(metric, row["B - A"], sign="+"),
        )
        for metric, row in zip(table["metric"], table.to_dict("records"), strict=True)
    )
    items: list[Item] = [Table("Last values", ("metric", "A", "B", "B - A"), rows, (False, True, True, True))]
    histories = {side.letter: side.history for side in (diff.a, diff.b) if side.history is not None}
    if histories:
        ends = [f"{letter} ends at {_describe_end(history)}" for letter, history in histories.items()]
        alt = f"Learning curves of both runs, loss and accuracy by epoch: {'; '.join(ends)}."
        items.append(Picture(alt, partial(_draw_curves, histories)))
    return tuple(items)


def _draw_curves(histories: Mapping[str, pd.DataFrame]) -> bytes:
    from mnist_pipeline.reports import figures  # imported here, because the terminal need not wait for matplotlib

    return figures.draw_curves(histories)


def _show_figure(metric: str, value: float, *, sign: str = "") -> str:
    shown = "" if pd.isna(value) else show(metric, float(value))
    return f"{sign}{shown}" if shown and value >= 0 else shown


def _describe_end(history: pd.DataFrame) -> str:
    last = history.iloc[-1]
    accuracy = last.get(Metric.VALIDATION_ACCURACY, last.get(Metric.TRAIN_ACCURACY))
    return f"accuracy {accuracy:.4f} after epoch {last['epoch']:.0f}"


def _show_images(diff: Diff, images: npt.NDArray[np.uint8] | None) -> tuple[Item, ...]:
    compared, table = diff.comparison, diff.disagreements
    if compared is None:
        return (Text("They cannot be compared: see above."),)
    lines = {
        "test images": f"{compared.num_images:,}",
        "they disagree on": f"{len(table):,}",
        "only A is right": f"{compared.num_lost:,}",
        "only B is right": f"{compared.num_gained:,}",
        "p-value": f"{compared.two_sided_p_value:.2g} (exact McNemar test, two-sided; it spends no budget)",
    }
    if table.empty:
        return (Lines(lines), Text("They agree on every image."))
    shown = tabulate(
        "The most confident first", table, show=lambda column, value: f"{value:.4f}" if "prob" in column else str(value)
    )
    items: list[Item] = [Lines(lines)]
    if images is not None:
        first = table.head(MOST_PICTURES)
        captions = [
            f"label {row['label']}\nA {row['A']} {row['A probability']:.0%}, B {row['B']} {row['B probability']:.0%}"
            for row in first.to_dict("records")
        ]
        alt = f"{count(len(first), 'test image')} on which A and B disagree; the table has their predictions."
        items.append(Picture(alt, partial(_draw_disagreements, images[first["image"].to_numpy()], captions)))
    return (*items, shown)


def _draw_disagreements(images: npt.NDArray[np.uint8], captions: list[str]) -> bytes:
    from mnist_pipeline.reports import figures  # see _draw_curves

    return figures.draw_disagreements(images, captions)
