"""The one finder of runs by what a person types.

That is an id or an id prefix of at least six characters, a name, the name of a study, `champion`, `challenger`,
`model@alias`, or the number of a registered version.
"""

import re
from collections.abc import Callable, Collection

from mnist_pipeline.system.errors import GoneError, UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.system.nearest import nearest
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import ACTIVE, DELETED, Condition
from mnist_pipeline.tracking.record import Kind, RunRecord, Tag
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION, RegisteredModel, list_models

_MIN_PREFIX = 6
_MAX_VERSION_DIGITS = 5  # longer numbers are id prefixes
_MAX_SHOWN = 5


def find(store: MlflowStore, typed: str, *, model_name: str, kinds: Collection[str] | None = None) -> RunRecord:
    """Return the run that is meant.

    If several runs have the name and only one of them is finished, that one is meant.

    Args:
        store: Where it is.
        typed: What a person typed.
        model_name: The registered model of an alias or a version number on its own.
        kinds: Of the runs that a name may mean; None: all but the entries of a ledger.

    Raises:
        UserError: There is no such run, there are several, or it was deleted.
    """
    try:
        run_id = _find_registered(store, typed, model_name=model_name)
    except UserError:
        try:
            return _find_unregistered(store, typed, kinds)  # it may be a name after all
        except UserError:
            pass
        raise
    return _find_unregistered(store, typed, kinds) if run_id is None else find_run_of_version(store, run_id)


def find_run_of_version(store: MlflowStore, run_id: str) -> RunRecord:
    """Return the run that a registered version came from, even if it has been deleted since.

    Raises:
        GoneError: It was deleted for good.
    """
    run = runs.get(store, run_id)
    if run is None:
        raise GoneError(
            f"the version's run {run_id} is gone, and with it the predictions to compare with: remove the champion "
            f"({command('rollback', '--to none --reason WHY')}), or roll back to another one (--to VERSION)"
        )
    return run


def list_aliases(store: MlflowStore) -> dict[str, list[str]]:
    """Return all aliases of registered versions, as `model@alias`, by the ids of their runs."""
    found: dict[str, list[str]] = {}
    for model in list_models(store):
        for version, names in model.aliases().items():
            run_id = model.run_id(version)
            if run_id:
                found.setdefault(run_id, []).extend(f"{model.name}@{name}" for name in names)
    return found


def _find_registered(store: MlflowStore, typed: str, *, model_name: str) -> str | None:
    """Return the id of the run of a registered version; None where no version can be meant."""
    if "@" in typed:
        name, _, alias = typed.rpartition("@")
        return _find_alias(store, [RegisteredModel(store, name)], alias, typed)
    if typed in (CHAMPION, CHALLENGER):
        first = RegisteredModel(store, model_name)
        models = [first] if first.named(typed) is not None else list_models(store)
        return _find_alias(store, models, typed, typed)
    if typed.isdecimal() and len(typed) <= _MAX_VERSION_DIGITS:
        return RegisteredModel(store, model_name).run_of(int(typed))
    return None


def _find_alias(store: MlflowStore, models: list[RegisteredModel], alias: str, typed: str) -> str:
    """Return the id of the run of the only model that has the alias."""
    found = [(model, version) for model in models if (version := model.named(alias)) is not None]
    if len(found) == 1:
        model, version = found[0]
        return model.run_of(version)
    if found:
        names = " or ".join(f"{model.name}@{alias}" for model, _ in found)
        raise UserError(f"{typed}: {len(found)} registered models have this alias; give {names}")
    known = [
        f"{model.name}@{name}" for model in list_models(store) for names in model.aliases().values() for name in names
    ]
    near = nearest(typed, known)
    hint = f"there are {', '.join(known)}" if known else f"no model has one yet: promote a run ({command('promote')})"
    raise UserError(f"{typed}: no such alias; {f'did you mean {near}?' if near else hint}")


def _find_unregistered(store: MlflowStore, typed: str, kinds: Collection[str] | None) -> RunRecord:
    found = runs.get(store, typed) or _find_named(store, typed, kinds)
    if found is None:
        deleted = [run for run in _search(store, typed, kinds, stages=DELETED) if run.name == typed]
        found = next(iter(deleted), None)
    if found is None:
        known = _list_names(store, kinds)
        near = nearest(typed, known)
        hint = f"did you mean {near}?" if near else f"the newest are {', '.join(known[:_MAX_SHOWN]) or 'none'}"
        which = f" of kind {' or '.join(kinds)}" if kinds else ""
        raise UserError(f"{typed}: no run{which} has this id or name; {hint}")
    if found.is_deleted:
        raise UserError(f"{typed} was deleted: restore it (mlflow runs restore --run-id {found.run_id})")
    return found


def _find_named(store: MlflowStore, typed: str, kinds: Collection[str] | None) -> RunRecord | None:
    found = _search(store, typed, kinds)
    ways: tuple[Callable[[RunRecord], bool], ...] = (
        lambda run: run.name == typed,
        lambda run: run.kind == Kind.SWEEP,  # the name of a study means the parent of its runs
        lambda run: run.run_id.startswith(typed),
    )
    for is_meant in ways:
        meant = [run for run in found if is_meant(run)]
        chosen = [run for run in meant if run.is_finished] or meant
        if len(chosen) > 1:
            ids = ", ".join(run.run_id for run in chosen[:_MAX_SHOWN])
            raise UserError(f"{typed}: {len(chosen)} runs have this name; give the id of one: {ids}")
        if chosen:
            return chosen[0]
    return None


def _search(
    store: MlflowStore, typed: str, kinds: Collection[str] | None, *, stages: tuple[str, ...] = ACTIVE
) -> list[RunRecord]:
    """Return the runs with this name, study or id prefix."""
    if "'" in typed and '"' in typed:  # MLflow's filters cannot quote both
        return [run for run in _search_kinds(store, kinds, (), stages) if run.name == typed]
    conditions = [Condition("attribute", "run_name", "=", typed), Condition("tag", Tag.STUDY, "=", typed)]
    if re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},31}}", typed):
        conditions.append(Condition("attribute", "run_id", "LIKE", f"{typed}%"))
    return [run for condition in conditions for run in _search_kinds(store, kinds, (condition,), stages)]


def _search_kinds(
    store: MlflowStore,
    kinds: Collection[str] | None,
    conditions: tuple[Condition, ...],
    stages: tuple[str, ...] = ACTIVE,
) -> list[RunRecord]:
    found = runs.search(store, runs.experiment_ids(store), {}, conditions=conditions, stages=stages)
    return [run for run in found if (run.kind in kinds if kinds else run.kind != Kind.PROMOTION)]


def _list_names(store: MlflowStore, kinds: Collection[str] | None) -> list[str]:
    """Return the names of runs and studies, those of the newest first."""
    known = _search_kinds(store, kinds, ())
    studies = (run.tags.get(Tag.STUDY, "") for run in known)
    return [name for name in dict.fromkeys([*(run.name for run in known), *studies]) if name]
