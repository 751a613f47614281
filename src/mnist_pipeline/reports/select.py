"""The selection of runs to compare, and the reasons why others are left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_pipeline.registry.settings import RegistryConfig
from mnist_pipeline.reports.values import count
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import find_run, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Kind, Metric, RunRecord, Tag

_KINDS = (Kind.TRAIN, Kind.CONFIRM, Kind.FINAL)


@dataclass(frozen=True)
class Selection:
    """Runs that can be compared: finished, of one experiment, on one data set.

    Attributes:
        problems: One line each: named runs, and why they are left out.
        notes: One line each: other runs that are left out.
    """

    runs: tuple[RunRecord, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def select(store: MlflowStore, where: RegistryConfig, named: Sequence[str], *, condition: str | None) -> Selection:
    """Return the named runs; if none is named, the trained runs of the experiment.

    Args:
        store: Holds the runs.
        where: The experiment, and the registered model of aliases.
        named: As for `find_run.find`; a study stands for its complete trials and its confirmation.
        condition: In the language of MLflow's search box. Without names it selects among all kinds of runs.

    Raises:
        UserError: No run is left.
        ConfigError: MLflow does not understand the condition.
    """
    if not named:
        return _select_all(store, where, condition)
    chosen_runs: dict[str, RunRecord] = {}
    problems: list[str] = []
    notes: list[str] = []
    for name in named:
        try:
            run = find_run.find(store, name, model_name=where.model_name)
        except UserError as error:
            problems.append(str(error))
            continue
        if run.kind == Kind.SWEEP:
            trials = _trials(store, run, notes)
            chosen_runs |= {trial.run_id: trial for trial in trials}
        elif not run.kind:
            problems.append(f"{run.label} was made by another program: left out")
        elif not run.is_finished:
            problems.append(f"{name} is {run.status}: {_advice(run)}")
        else:
            chosen_runs[run.run_id] = run
    chosen = list(chosen_runs.values())
    if condition is not None:
        fitting = runs.filter_runs(store, sorted({run.experiment_id for run in chosen}), condition)
        wanted = {run.run_id for run in fitting}
        chosen = [run for run in chosen if run.run_id in wanted]
    if not chosen:
        raise _nothing(problems, notes)
    first = chosen[0]
    for run in chosen[1:]:
        differences = (
            run.experiment_id != first.experiment_id,
            run.tags.get(Tag.DATA_DIGEST) != first.tags.get(Tag.DATA_DIGEST),
        )
        if any(differences):
            difference = "on other data" if differences[1] else "in another experiment"
            problems.append(
                f"{run.label} is {difference} than {first.label}: left out; compare it with runs of the same kind"
            )
            del chosen_runs[run.run_id]
    return Selection(tuple(run for run in chosen if run.run_id in chosen_runs), tuple(problems), tuple(notes))


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
        notes.append(
            f"there are no runs of {name}: these are the runs of {known[0]} (data.name={known[0]} selects them too)"
        )
    assert experiment is not None
    kinds = _KINDS if condition is None else (*_KINDS, Kind.TRIAL)
    fitting = [run for run in runs.filter_runs(store, [experiment], condition) if run.kind in kinds]
    found = [run for run in fitting if run.tags.get(Tag.TRIAL_STATE) != "PRUNED"]
    if len(found) < len(fitting):
        notes.append(f"left out: {count(len(fitting) - len(found), 'pruned trial')}")
    finished = [run for run in found if run.is_finished]
    if len(finished) < len(found):
        counts = Counter(run.status for run in found)
        del counts["FINISHED"]
        notes.append(f"left out: {', '.join(f'{number} {status}' for status, number in counts.items())}")
    if not finished:
        raise _nothing([], notes)
    kept = [run for run in finished if run.tags.get(Tag.DATA_DIGEST) == finished[0].tags.get(Tag.DATA_DIGEST)]
    if len(kept) < len(finished):
        other = next(run for run in finished if run.tags.get(Tag.DATA_DIGEST) != kept[0].tags.get(Tag.DATA_DIGEST))
        notes.append(
            f"left out: {len(finished) - len(kept)} on other data than the newest, {finished[0].label}; "
            f"--filter \"tags.`{Tag.DATA_DIGEST}` = '{other.tags.get(Tag.DATA_DIGEST)}'\" selects those of "
            f"{other.label}"
        )
    return Selection(tuple(kept), (), tuple(notes))


def _trials(store: MlflowStore, sweep: RunRecord, notes: list[str]) -> list[RunRecord]:
    tags = {Tag.PARENT: sweep.run_id}
    children = runs.search(store, [sweep.experiment_id], tags)
    found = [run for run in children if run.kind in (Kind.TRIAL, Kind.CONFIRM)]
    complete = [run for run in found if run.tags.get(Tag.TRIAL_STATE) == "COMPLETE" and run.is_finished]
    metric = sweep.settings.get("sweep.metric")
    if metric not in (None, Metric.VALIDATION_ACCURACY):
        notes.append(f"ranked by accuracy, but {sweep.name} optimised {metric}")
    if len(complete) < len(found):
        others = count(len(found) - len(complete), "trial")
        notes.append(f"left out: {others} of {sweep.name}, pruned, failed or still running")
    return complete


def _advice(run: RunRecord) -> str:
    if run.status == "RUNNING":
        return "it has no result yet (if its command was killed, the same command resumes it)"
    reason = run.tags.get(Tag.REASON, "").strip()
    return f"it has no result, {reason.splitlines()[0][:150]}" if reason else "it has no result"


def _nothing(problems: Sequence[str], notes: Sequence[str]) -> UserError:
    reasons = [*problems, *notes] or [
        "there is no finished run, or none matches the filter (are the names in it right?)"
    ]
    return UserError("; ".join(["nothing to compare", *reasons]))
