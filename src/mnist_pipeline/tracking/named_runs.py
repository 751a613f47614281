"""Runs by what a person calls them: an id, the beginning of one, a name, or the name of a study."""

import difflib
import re
from collections.abc import Callable, Collection

from mlflow.entities import Run as MlflowEntity
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore

_MIN_PREFIX = 6
_MAX_SHOWN = 5


def get(store: MlflowStore, run_id: str) -> MlflowEntity | None:
    """Return the run with this id, even if it was deleted; None where there is none."""
    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find(store: MlflowStore, named: str, *, kinds: Collection[str] | None = None) -> MlflowEntity:
    """Return the run with this id, or the only one with this name, study, or beginning of an id.

    Where several have the name and only one of them is finished, that one is meant.

    Args:
        store: Where it is.
        named: What a person calls it.
        kinds: Of the runs that may be meant; None: all but the entries of a ledger.

    Raises:
        UserError: There is none, there are several, or it was deleted.
    """
    entity = get(store, named)
    if entity is None:
        entity = _find_named(store, named, kinds)
    if entity is None:
        deleted = [
            one for one in _search(store, named, kinds, view=ViewType.DELETED_ONLY) if one.info.run_name == named
        ]
        entity = next(iter(deleted), None)
    if entity is None:
        nearest = difflib.get_close_matches(named, _names(store, kinds), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "make ui shows the runs; give the id of one"
        which = f" of kind {' or '.join(kinds)}" if kinds else ""
        raise UserError(f"{named}: no run{which} has this id or name; {hint}")
    if entity.info.lifecycle_stage != "active":
        raise UserError(f"{named} was deleted: restore it (mlflow runs restore --run-id {entity.info.run_id})")
    return entity


def _find_named(store: MlflowStore, named: str, kinds: Collection[str] | None) -> MlflowEntity | None:
    found = _search(store, named, kinds)
    ways: tuple[Callable[[MlflowEntity], bool], ...] = (
        lambda one: bool(one.info.run_name == named),
        lambda one: bool(one.data.tags.get("kind") == "sweep"),  # of a study's runs its name means the parent alone
        lambda one: bool(one.info.run_id.startswith(named)),
    )
    for is_meant in ways:
        meant = [one for one in found if is_meant(one)]
        chosen = [one for one in meant if one.info.status == "FINISHED"] or meant
        if len(chosen) > 1:
            ids = ", ".join(one.info.run_id for one in chosen[:_MAX_SHOWN])
            raise UserError(f"{named}: {len(chosen)} runs have this name; give the id of one: {ids}")
        if chosen:
            return chosen[0]
    return None


def _search(
    store: MlflowStore, named: str, kinds: Collection[str] | None, *, view: str = ViewType.ACTIVE_ONLY
) -> list[MlflowEntity]:
    """Return the runs with this name, study, or beginning of an id."""
    quote = '"' if "'" in named else "'"
    if quote in named:  # MLflow's filter knows no way to write both
        return [one for one in _all(store, kinds, (), view) if one.info.run_name == named]
    conditions = [f"attributes.run_name = {quote}{named}{quote}", f"tags.study = {quote}{named}{quote}"]
    if re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},31}}", named):
        conditions.append(f"attributes.run_id LIKE '{named}%'")
    return [one for condition in conditions for one in _all(store, kinds, (condition,), view)]


def _all(
    store: MlflowStore, kinds: Collection[str] | None, conditions: tuple[str, ...], view: str = ViewType.ACTIVE_ONLY
) -> list[MlflowEntity]:
    experiments = runs.experiment_ids(store)
    found = runs.search(store, experiments, {}, conditions=conditions, view=view)
    tagged = [(one, one.data.tags.get("kind")) for one in found]
    return [one for one, kind in tagged if (kind in kinds if kinds else kind != "promotion")]


def _names(store: MlflowStore, kinds: Collection[str] | None) -> set[str]:
    known = _all(store, kinds, ())
    return {one.info.run_name for one in known} | {one.data.tags.get("study", "") for one in known} - {""}
