"""What a person may call a run: its id or name, `champion`, `model@alias`, the number of a registered version."""

import difflib

from mnist_pipeline.registry import candidates
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import named_runs, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.registered_models import CHALLENGER, CHAMPION, RegisteredModel, list_models
from mnist_pipeline.tracking.tracker import PastRun

_MAX_VERSION_DIGITS = 5  # longer numbers are beginnings of ids


def find(store: MlflowStore, named: str, *, model_name: str) -> PastRun:
    """Return the run that is meant.

    Args:
        store: Where it is.
        named: Id, beginning of an id, name, study, `champion`, `challenger`, `model@alias` or a version's number.
        model_name: The registered model that an alias or a number alone is of.

    Raises:
        UserError: There is none, or there are several.
    """
    try:
        run_id = _registered(store, named, model_name=model_name)
    except UserError:
        try:
            return runs.read(store, named_runs.find(store, named))  # it may be a name all the same
        except UserError:
            pass
        raise
    if run_id is None:
        return runs.read(store, named_runs.find(store, named))
    return candidates.find_run(store, run_id)


def _registered(store: MlflowStore, named: str, *, model_name: str) -> str | None:
    """Return the id of the run of a registered version; None where no version can be meant."""
    if "@" in named:
        name, _, alias = named.rpartition("@")
        return _of_alias(store, [RegisteredModel(store, name)], alias, named)
    if named in (CHAMPION, CHALLENGER):
        first = RegisteredModel(store, model_name)
        models = [first] if first.named(named) is not None else list_models(store)
        return _of_alias(store, models, named, named)
    if named.isdecimal() and len(named) <= _MAX_VERSION_DIGITS:
        return RegisteredModel(store, model_name).run_of(int(named))
    return None


def _of_alias(store: MlflowStore, models: list[RegisteredModel], alias: str, named: str) -> str:
    """Return the id of the run of the only model that has the alias."""
    found = [(model, version) for model in models if (version := model.named(alias)) is not None]
    if len(found) == 1:
        model, version = found[0]
        return model.run_of(version)
    if found:
        names = " or ".join(f"{model.name}@{alias}" for model, _ in found)
        raise UserError(f"{named}: {len(found)} registered models have it; give {names}")
    known = [
        f"{model.name}@{name}" for model in list_models(store) for names in model.aliases().values() for name in names
    ]
    nearest = difflib.get_close_matches(named, known, n=1)
    hint = f"there are {', '.join(known)}" if known else "no model has any: promote a run (mnist-pipeline promote)"
    raise UserError(f"{named}: no such alias; {f'did you mean {nearest[0]}?' if nearest else hint}")


def list_aliases(store: MlflowStore) -> dict[str, list[str]]:
    """Return all aliases of registered versions, as `model@alias`, by the ids of their runs."""
    found: dict[str, list[str]] = {}
    for model in list_models(store):
        for version, names in model.aliases().items():
            run_id = model.run_id(version)
            if run_id:
                found.setdefault(run_id, []).extend(f"{model.name}@{name}" for name in names)
    return found
