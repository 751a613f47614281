"""Runs by what a person calls them: an id, the beginning of one, a name, or the name of a study."""

import difflib
import re
from collections.abc import Collection

from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline import mlflow_runs
from mnist_pipeline.errors import UserError
from mnist_pipeline.mlflow_store import MlflowStore

KINDS = ("train", "trial", "confirm", "final", "sweep", "reproduction")
"""Of the runs that have names; an entry of the ledger is no one's run."""
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


def find(store: MlflowStore, named: str, *, kinds: Collection[str] = KINDS) -> MlflowEntity:
    """Return the run with this id, or the only one of these kinds with this name, study, or beginning of an id.

    Where several have the name and only one of them is finished, that one is meant.

    Raises:
        UserError: There is none, there are several, or it was deleted.
    """
    entity = get(store, named)
    if entity is not None:
        if entity.info.lifecycle_stage != "active":
            raise UserError(f"{named} was deleted: restore it (mlflow runs restore --run-id {entity.info.run_id})")
        return entity
    for condition in _conditions(named):
        found = _search(store, condition, kinds)
        finished = [one for one in found if one.info.status == "FINISHED"]
        chosen = finished or found
        if len(chosen) > 1:
            ids = ", ".join(one.info.run_id for one in chosen[:_MAX_SHOWN])
            raise UserError(f"{named}: {len(chosen)} runs have this name; give the id of one: {ids}")
        if chosen:
            return chosen[0]
    nearest = difflib.get_close_matches(named, _names(store, kinds), n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "make ui shows the runs; give the id of one"
    which = "" if kinds is KINDS else f" of kind {' or '.join(kinds)}"
    raise UserError(f"{named}: no run{which} has this id or name; {hint}")


def _conditions(named: str) -> list[str]:
    quote = '"' if "'" in named else "'"
    if quote in named:
        return []
    conditions = [f"attributes.run_name = {quote}{named}{quote}", f"tags.study = {quote}{named}{quote}"]
    if re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},31}}", named):
        conditions.append(f"attributes.run_id LIKE '{named}%'")
    return conditions


def _search(store: MlflowStore, condition: str, kinds: Collection[str]) -> list[MlflowEntity]:
    # Of a study's runs the parent alone is called by its name.
    wanted = {"sweep"} & set(kinds) if condition.startswith("tags.study") else kinds
    found = mlflow_runs.search(store, mlflow_runs.experiment_ids(store), {}, conditions=(condition,))
    return [entity for entity in found if entity.data.tags.get("kind") in wanted]


def _names(store: MlflowStore, kinds: Collection[str]) -> set[str]:
    entities = mlflow_runs.search(store, mlflow_runs.experiment_ids(store), {})
    known = [entity for entity in entities if entity.data.tags.get("kind") in kinds]
    return {entity.info.run_name for entity in known} | {entity.data.tags.get("study", "") for entity in known} - {""}
