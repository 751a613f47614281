"""Which run is to be promoted."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from mlflow.entities import Run as MlflowEntity
from mlflow.entities import ViewType

from mnist_pipeline.registry.gates import DIGEST_TAGS
from mnist_pipeline.system.errors import GoneError, UserError
from mnist_pipeline.tracking import integrity, named_runs, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.tracker import PastRun

KINDS = ("train", "final")
WAYS_ON = (
    "train the same run again and promote it (its report has the command), roll back (mnist-pipeline rollback --reason "
    "WHY), or give it up (mnist-pipeline rollback --to none --reason WHY)"
)
"""What to do about a champion whose files are damaged or gone."""

_SPLIT_KEYS = ("data.validation_size", "data.split_seed")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A run that may be promoted.

    Attributes:
        model_id: Of the model that it logged.
        why: How it came to be chosen.
    """

    run: PastRun
    model_id: str
    why: str


def find_named(store: MlflowStore, named: str) -> Candidate:
    """Return the run that a person calls `named`, as `named_runs.find` does.

    Raises:
        UserError: There is none, there are several, or it is no candidate.
    """
    entity = named_runs.find(store, named, kinds=KINDS)
    kind = entity.data.tags.get("kind", "unknown")
    if kind not in KINDS or entity.info.status != "FINISHED":
        raise UserError(
            f"{named} is a {entity.info.status} run of kind {kind}: expected a finished {' or '.join(KINDS)}"
        )
    candidate = _candidate(store, entity, why="as named")
    if candidate is None:
        raise UserError(f"{named} has no logged model: give another run, or train it again with force=true")
    return candidate


def find_best(
    store: MlflowStore, experiment: str, *, champion: PastRun | None, data_name: str, shunned: Collection[str] = ()
) -> Candidate:
    """Return the run with the best validation accuracy among those that can be compared with each other.

    Those are the finished runs on the champion's data, of one validation split: the champion's, else the newest run's.
    A run whose files are damaged is passed over.

    Args:
        store: Where they are.
        experiment: Name of the experiment in which they are looked for.
        champion: The champion's run; None: there is none.
        data_name: Of the registered model.
        shunned: Ids of runs that are not to be chosen.

    Raises:
        UserError: There is none.
    """
    found = store.find_experiment(experiment)
    entities = [
        entity
        for entity in _finished(store, [found] if found else [])
        if "data.fallback" not in entity.data.tags and entity.data.params.get("data.name") == data_name
        if entity.info.run_id not in shunned
        if champion is None or all(entity.data.tags.get(tag) == champion.tags.get(tag) for tag in DIGEST_TAGS)
    ]
    if not entities:
        whose = "on the champion's data " if champion else ""
        raise UserError(
            f"no run {whose}can be promoted in the experiment {experiment} (runs that fell back on other data do not "
            f"count): train one (mnist-pipeline train data={data_name}), or give tracking.experiment= another name"
        )
    ranked = [entity for entity in entities if "validation/accuracy" in entity.data.metrics]
    if not ranked:
        raise UserError(
            f"none of the {len(entities)} runs has a validation split to rank them by: name the one to promote"
        )
    split = _split(champion) if champion and _split(champion) in map(_split, ranked) else _split(ranked[0])
    comparable = [entity for entity in ranked if _split(entity) == split]
    # Of equal ones the oldest, so that a run made twice is not promoted twice.
    comparable.sort(key=lambda entity: (-entity.data.metrics["validation/accuracy"], entity.info.start_time))
    names = ", ".join(f"{key}={value}" for key, value in zip(_SPLIT_KEYS, split, strict=True))
    for entity in comparable:
        accuracy = entity.data.metrics["validation/accuracy"]
        why = f"best validation accuracy, {accuracy:.4f}, of {len(comparable)} with {names}"
        candidate = _candidate(store, entity, why=why)
        damage = integrity.find_damage(store, entity.info.run_id) if candidate else ()
        if damage:
            _log.warning("%s (%s) is passed over: %s", entity.info.run_name, entity.info.run_id, "; ".join(damage))
        elif candidate is not None:
            return candidate
    raise UserError(
        f"none of the {len(comparable)} runs with {names} has a model and all of its files: train one with force=true"
    )


def find_run(store: MlflowStore, run_id: str) -> PastRun:
    """Return the run that a version came of, even if it was deleted since.

    Raises:
        GoneError: It was deleted for good.
    """
    entity = named_runs.get(store, run_id)
    if entity is None:
        raise GoneError(
            f"the version's run {run_id} is gone, and with it the predictions to compare with: roll back to another "
            "version (mnist-pipeline rollback --to VERSION --reason WHY), or give the champion up (--to none)"
        )
    return runs.read(store, entity)


def count_scored(store: MlflowStore, test_digest: str) -> int:
    """Return how many runs were ever scored on a test split, deleted ones included."""
    experiments = runs.experiment_ids(store, view=ViewType.ALL)
    scored = ("metrics.`test/accuracy` >= 0",)
    tags = {"data.test_digest": test_digest}
    return sum(1 for _ in runs.search(store, experiments, tags, conditions=scored, view=ViewType.ALL))


def _split(run: MlflowEntity | PastRun) -> tuple[str, ...]:
    params = run.params if isinstance(run, PastRun) else run.data.params
    return tuple(str(params.get(key)) for key in _SPLIT_KEYS)


def _finished(store: MlflowStore, experiments: list[str]) -> list[MlflowEntity]:
    """Return the finished runs that may be promoted, the newest first."""
    finished = ("attributes.status = 'FINISHED'",)
    found = [
        entity for kind in KINDS for entity in runs.search(store, experiments, {"kind": kind}, conditions=finished)
    ]
    return sorted(found, key=lambda entity: int(entity.info.start_time), reverse=True)


def _candidate(store: MlflowStore, entity: MlflowEntity, *, why: str) -> Candidate | None:
    model = runs.find_model(store, entity)
    return None if model is None else Candidate(runs.read(store, entity), model.model_id, why)
