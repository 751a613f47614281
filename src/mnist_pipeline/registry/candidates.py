"""The run to promote."""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mnist_pipeline.registry.gates import DIGEST_TAGS
from mnist_pipeline.registry.settings import select
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking import find_run, integrity, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import FINISHED, Condition, StoredModel, StoredRun
from mnist_pipeline.tracking.record import KEPT, Kind, Metric, RunRecord, Tag

KINDS = (Kind.TRAIN, Kind.FINAL)
SPLIT_KEYS = ("data.validation_size", "data.split_seed")

_COMPARED = (
    *(Tag.RESULT_DIGEST, Tag.DATA_FALLBACK, *SPLIT_KEYS),
    *(Metric.VALIDATION_ACCURACY, f"{KEPT}{Metric.VALIDATION_ACCURACY}"),
)
"""The params, metrics and tags by which runs are chosen."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A run that may be promoted.

    Attributes:
        model: That it logged.
        why: Why it was chosen.
    """

    run: RunRecord
    model: StoredModel
    why: str


def replace_champion() -> str:
    """Return what a user can do about a champion whose files are damaged or gone."""
    return (
        "train the same run again and promote it (its report has the command), roll back "
        f"({command('rollback', '--reason WHY')}), or remove the champion "
        f"({command('rollback', '--to none --reason WHY')})"
    )


def find_typed(store: MlflowStore, typed: str, *, model_name: str) -> Candidate:
    """Return the run that a person means by `typed`, as `find_run.find` does.

    Raises:
        UserError: There is no such run, there are several, or it is not a candidate.
    """
    run = find_run.find(store, typed, model_name=model_name, kinds=KINDS)
    if run.kind not in KINDS or not run.is_finished:
        raise UserError(
            f"{typed} is a {run.status} run of kind {run.kind or 'unknown'}: expected a finished {' or '.join(KINDS)}"
        )
    candidate = _make_candidate(store, run, why="as named")
    if candidate is None:
        raise UserError(f"{typed} has no logged model: give another run, or train it again with force=true")
    return candidate


def find_best(
    store: MlflowStore, experiment: str, *, champion: RunRecord | None, data_name: str, shunned: Collection[str] = ()
) -> Candidate:
    """Return the run with the best validation accuracy among those that can be compared with each other.

    Those are the finished runs on the champion's data, of one validation split: the champion's, else the newest run's.
    A run whose files are damaged is skipped.

    Args:
        store: Where they are.
        experiment: Name of the experiment to search.
        champion: The champion's run; None if there is no champion.
        data_name: Of the registered model.
        shunned: Ids of runs that must not be chosen, nor any run with the same result.

    Raises:
        UserError: There is no such run.
    """
    experiment_id = store.find_experiment(experiment)
    refused = [run for run in (runs.get(store, run_id) for run_id in shunned) if run is not None]
    digests = {run.tags[Tag.RESULT_DIGEST] for run in refused if Tag.RESULT_DIGEST in run.tags}
    conditions = [Condition("parameter", "data.name", "=", data_name)]
    if champion is not None:
        digests_of_data = {tag: champion.tags.get(tag) for tag in DIGEST_TAGS}
        conditions += [
            Condition("tag", tag, "IS NULL" if digest is None else "=", digest)
            for tag, digest in digests_of_data.items()
        ]
    found = [
        run
        for run in _list_finished(store, [experiment_id] if experiment_id else [], conditions, keys=_COMPARED)
        if Tag.DATA_FALLBACK not in run.tags
        if run.run_id not in shunned and run.tags.get(Tag.RESULT_DIGEST) not in digests
    ]
    if not found:
        raise _nothing(store, experiment, data_name, champion)
    accuracies = {run.run_id: runs.read_metrics(run).get(Metric.VALIDATION_ACCURACY) for run in found}
    ranked = []
    for run in found:
        accuracy = accuracies[run.run_id]
        if accuracy is not None and math.isfinite(accuracy):
            ranked.append(run)
        elif accuracy is not None:
            _log.warning("%s is left out: its validation accuracy is not a number", runs.read(store, run).label)
    if not ranked:
        raise UserError(
            f"none of the {len(found)} runs has a validation split to rank them by: name the one to promote"
        )
    split = _split(champion) if champion and _split(champion) in map(_split, ranked) else _split(ranked[0])
    comparable = [run for run in ranked if _split(run) == split]
    # Of equal ones the oldest, so that a run made twice is not promoted twice.
    comparable.sort(key=lambda run: (-(accuracies[run.run_id] or 0.0), run.started_ms))
    names = ", ".join(f"{key}={value}" for key, value in zip(SPLIT_KEYS, split, strict=True))
    for run in comparable:
        why = f"best validation accuracy, {accuracies[run.run_id]:.4f}, of {len(comparable)} with {names}"
        whole = runs.get(store, run.run_id)  # the search has read only what it compares
        candidate = None if whole is None else _make_candidate(store, whole, why=why)
        damage = integrity.find_damage(store, run.run_id) if candidate else ()
        if damage:
            _log.warning("%s (%s) is skipped: %s", run.name, run.run_id, "; ".join(damage))
        elif candidate is not None:
            return candidate
    raise UserError(
        f"none of the {len(comparable)} runs with {names} has a model and all of its files: train one with force=true"
    )


def _nothing(store: MlflowStore, experiment: str, data_name: str, champion: RunRecord | None) -> UserError:
    """Return the error for an experiment without a candidate, with the next step that fits what the store holds."""
    keys = ("data.name", Tag.DATA_FALLBACK, Tag.DATA_REQUESTED)
    finished = _list_finished(store, runs.experiment_ids(store), (), keys=keys)
    others = [run for run in finished if run.params.get("data.name")]
    asked = [run for run in others if Tag.DATA_FALLBACK not in run.tags]
    fallbacks = [
        run for run in others if Tag.DATA_FALLBACK in run.tags and run.tags.get(Tag.DATA_REQUESTED) == data_name
    ]
    whose = " on the champion's data" if champion else ""
    start = f"no run{whose} can be promoted in the experiment {experiment}"
    if any(run.params["data.name"] == data_name for run in asked):
        return UserError(
            f"{start}: train one ({command('train')}), name a run, or give tracking.experiment= another name"
        )
    if asked:
        newest = asked[0].params["data.name"]
        return UserError(f"{start}: the runs here are of {newest}: {command('promote', select(newest))}")
    if fallbacks:
        used = fallbacks[0].params["data.name"]
        return UserError(
            f"{start}: {data_name} could not be found, and a run that fell back to {used} does not count. Ask for "
            f"{used} itself: {command('train', f'data={used}')}, then {command('promote', f'data={used}')}"
        )
    return UserError(f"{start}: train one ({command('train')})")


def _split(run: RunRecord | StoredRun) -> tuple[str, ...]:
    return tuple(str(run.params.get(key)) for key in SPLIT_KEYS)


def _list_finished(
    store: MlflowStore, experiments: list[str], conditions: Sequence[Condition], *, keys: Collection[str]
) -> list[StoredRun]:
    """Return the finished runs that may be promoted and fulfil the conditions, with these keys, the newest first."""
    asked = [FINISHED, *conditions]
    found = [
        run
        for kind in KINDS
        for run in runs.search_stored(store, experiments, {Tag.KIND: kind}, conditions=asked, keys=keys)
    ]
    return sorted(found, key=lambda run: run.started_ms, reverse=True)


def _make_candidate(store: MlflowStore, run: RunRecord, *, why: str) -> Candidate | None:
    model = runs.find_model(store, run)
    return None if model is None else Candidate(run, model, why)
