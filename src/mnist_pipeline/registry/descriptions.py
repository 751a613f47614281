"""What MLflow's own pages show of a decision: tags of the runs, and descriptions of the model and its versions."""

import time

from mnist_pipeline.registry.ledger import Entry
from mnist_pipeline.registry.registry import Registry
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.record import Tag
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION, link_to_card

_MAX_REASON_LENGTH = 4000  # a description in MLflow holds 5,000 characters


def tag_runs(registry: Registry) -> None:
    """Tag the runs of champion and challenger with `model@alias`, and no other run."""
    for alias in (CHAMPION, CHALLENGER):
        version = registry.model.named(alias)
        run_id = None if version is None else registry.model.run_id(version)
        runs.tag_only(registry.store, run_id, Tag.ALIAS, f"{registry.name}@{alias}")


def describe(registry: Registry, entry: Entry, champion: int | None) -> None:
    """Describe the registered model and the version of a decided entry; `champion` is the current one."""
    assert entry.outcome is not None
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.opened_ms / 1000))
    said = f"{entry.outcome.value} on {day} by {markdown(entry.user)}: {markdown(entry.reason)[:_MAX_REASON_LENGTH]}"
    tags = {"decision": entry.outcome.value, "ledger.entry": entry.id, "decided": day}
    if entry.version is not None:
        compared = {"p_value": f"{entry.spent.comparison.p_value:.3g}"} if entry.spent else {}
        registry.model.describe_version(
            entry.version, f"{said[0].upper()}{said[1:]}{_link_card(registry, entry.run_id)}", tags={**tags, **compared}
        )
    text = (
        f"Champion: **{_name(champion)}**. The last decision: {_name(entry.version)} {said} All decisions: the runs of "
        f"the experiment {markdown(registry.ledger.experiment)}, or `mnist-pipeline history`."
    )
    alpha = {"promote.alpha": str(entry.alpha)} if entry.alpha else {}
    registry.model.describe(text, tags={"decided": day, **alpha})


def _name(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _link_card(registry: Registry, run_id: str) -> str:
    run = runs.get(registry.store, run_id) if run_id else None
    if run is None or not runs.has_report(registry.store, run_id):
        return ""
    return link_to_card(runs.report_page(run.experiment_id, run_id))
