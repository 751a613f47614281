"""Which runs are to be compared, and which of those that were asked for cannot be."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities import Run as MlflowEntity
from mlflow.exceptions import MlflowException

from mnist_pipeline.registry.settings import RegistryConfig
from mnist_pipeline.reports import naming
from mnist_pipeline.reports.values import count
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.tracker import PastRun

_KINDS = ("train", "confirm", "final")
_DIGEST = "data.digest"


@dataclass(frozen=True)
class Selection:
    """Runs that can be compared: finished, of one experiment, on one data set.

    Attributes:
        problems: One line each: runs that were named, and why they are left out.
        notes: One line each: what else is left out.
    """

    runs: tuple[PastRun, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def select(store: MlflowStore, where: RegistryConfig, named: Sequence[str], *, condition: str | None) -> Selection:
    """Return the runs that are named; where none is, the trained ones of the experiment.

    Args:
        store: Where they are.
        where: The experiment, and the registered model that aliases are of.
        named: As for `naming.find`; a study stands for its complete trials and its confirmation.
        condition: In the language of MLflow's search box. Without names it chooses among all kinds of runs.

    Raises:
        UserError: Nothing is left.
        ConfigError: MLflow does not understand the condition.
    """
    if not named:
        return _select_all(store, where, condition)
    runs: dict[str, PastRun] = {}
    problems: list[str] = []
    notes: list[str] = []
    for name in named:
        try:
            run = naming.find(store, name, model_name=where.model_name)
        except UserError as error:
            problems.append(str(error))
            continue
        if run.tags.get("kind") == "sweep":
            trials = _trials(store, run, notes)
            runs |= {trial.run_id: trial for trial in trials}
        elif not run.tags.get("kind"):
            problems.append(f"{call(run)} was made by another program: left out")
        elif run.status != "FINISHED":
            problems.append(f"{name} is {run.status}: {_advice(run)}")
        else:
            runs[run.run_id] = run
    chosen = list(runs.values())
    if condition is not None:
        wanted = {
            entity.info.run_id for entity in _search(store, sorted({run.experiment_id for run in chosen}), condition)
        }
        chosen = [run for run in chosen if run.run_id in wanted]
    if not chosen:
        raise _nothing(problems, notes)
    first = chosen[0]
    for run in chosen[1:]:
        differences = (run.experiment_id != first.experiment_id, run.tags.get(_DIGEST) != first.tags.get(_DIGEST))
        if any(differences):
            where_to = "on other data" if differences[1] else "in another experiment"
            problems.append(f"{call(run)} is {where_to} than {call(first)}: left out, compare it with its like")
            del runs[run.run_id]
    return Selection(tuple(run for run in chosen if run.run_id in runs), tuple(problems), tuple(notes))


def _select_all(store: MlflowStore, where: RegistryConfig, condition: str | None) -> Selection:
    name = where.tracking.experiment
    notes: list[str] = []
    experiment = store.find_experiment(name)
    if experiment is None:
        known = list(store.overviews(""))
        if len(known) != 1:
            shown = f" ({', '.join(known)})" if known else ""
            raise UserError(
                f"there is no experiment {name}: train a run first, or give data= or tracking.experiment= another name"
                f"{shown}"
            )
        experiment = store.find_experiment(known[0])
        notes.append(f"there are no runs of {name}: these are all there are, of {known[0]} (data={known[0]} says so)")
    assert experiment is not None
    kinds = _KINDS if condition is None else (*_KINDS, "trial")
    entities = [entity for entity in _search(store, [experiment], condition) if entity.data.tags.get("kind") in kinds]
    found = [entity for entity in entities if entity.data.tags.get("trial.state") != "PRUNED"]
    if len(found) < len(entities):
        notes.append(f"left out: {count(len(entities) - len(found), 'pruned trial')}")
    finished = [runs.read(store, entity) for entity in found if entity.info.status == "FINISHED"]
    if len(finished) < len(found):
        counts = Counter(entity.info.status for entity in found)
        del counts["FINISHED"]
        notes.append(f"left out: {', '.join(f'{number} {status}' for status, number in counts.items())}")
    if not finished:
        raise _nothing([], notes)
    kept = [run for run in finished if run.tags.get(_DIGEST) == finished[0].tags.get(_DIGEST)]
    if len(kept) < len(finished):
        other = next(run for run in finished if run not in kept)
        notes.append(
            f"left out: {len(finished) - len(kept)} on other data than the newest, {call(finished[0])}; "
            f"--filter \"tags.`{_DIGEST}` = '{other.tags.get(_DIGEST)}'\" chooses those of {call(other)}"
        )
    return Selection(tuple(kept), (), tuple(notes))


def _trials(store: MlflowStore, sweep: PastRun, notes: list[str]) -> list[PastRun]:
    tags = {"mlflow.parentRunId": sweep.run_id}
    children = [runs.read(store, entity) for entity in runs.search(store, [sweep.experiment_id], tags)]
    found = [run for run in children if run.tags.get("kind") in ("trial", "confirm")]
    complete = [run for run in found if run.tags.get("trial.state") == "COMPLETE" and run.status == "FINISHED"]
    metric = sweep.params.get("sweep.metric")
    if metric not in (None, "validation/accuracy"):
        notes.append(f"ranked by accuracy, but {sweep.name} sought its best by {metric}")
    if len(complete) < len(found):
        others = count(len(found) - len(complete), "trial")
        notes.append(f"left out: {others} of {sweep.name}, pruned, failed or running still")
    return complete


def _search(store: MlflowStore, experiment_ids: list[str], condition: str | None) -> list[MlflowEntity]:
    try:
        return list(runs.search(store, experiment_ids, {}, conditions=() if condition is None else (condition,)))
    except MlflowException as error:
        if condition is None or error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f'--filter {condition}: {reason}; it is as in MLflow\'s search box, e.g. "metrics.`test/accuracy` > 0.97"'
        ) from error


def call(run: PastRun) -> str:
    """Return name and beginning of the id."""
    return f"{run.name} ({run.run_id[:8]})"


def _advice(run: PastRun) -> str:
    if run.status == "RUNNING":
        return "it has no result yet (if its command is gone, the same command goes on with it)"
    reason = run.tags.get("reason", "").strip()
    return f"it has no result, {reason.splitlines()[0][:150]}" if reason else "it has no result"


def _nothing(problems: Sequence[str], notes: Sequence[str]) -> UserError:
    reasons = [*problems, *notes] or ["no finished run is there, or none fits the filter (are its names right?)"]
    return UserError("; ".join(["nothing to compare", *reasons]))
