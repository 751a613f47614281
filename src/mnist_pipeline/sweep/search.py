"""The search: it runs trials until as many as requested are complete or pruned."""

import logging
import math
import threading
import time
from functools import partial

from optuna.trial import FrozenTrial, Trial, TrialState

from mnist_pipeline.executors.executor import Executor
from mnist_pipeline.executors.failure import REASON, Cause, TrainingFailedError
from mnist_pipeline.executors.pool import ExecutorPool, Job, Jobs
from mnist_pipeline.sweep.plan import SweepPlan
from mnist_pipeline.sweep.settings import Sampler, SweepConfig
from mnist_pipeline.sweep.study import RUN, SOURCE, Study, count_finished
from mnist_pipeline.sweep.trainings import Trainings
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import Kind, Point, Tag

_log = logging.getLogger(__name__)


def search(plan: SweepPlan, study: Study, pool: ExecutorPool, trainings: Trainings) -> None:
    """Run trials until enough are complete or pruned, too many have failed, or time has run out."""
    config = plan.config
    deadline = time.monotonic() + config.timeout_sec if config.timeout_sec else math.inf
    in_flight: set[int] = set()
    lock = threading.Lock()

    def list_left() -> list[FrozenTrial]:
        """Return the trials of a killed command, of a lost worker, or of a database whose answer was lost."""
        return [trial for trial in study.trials(TrialState.RUNNING) if trial.number not in in_flight]

    def is_left() -> bool:
        with lock:
            return bool(list_left()) or may_start()

    def take() -> Job | None:
        with lock:
            left = list_left()
            is_new = not left
            if left:
                trial = study.adopt(left[0])
            elif may_start():
                trial = study.ask()
            else:
                return None
            in_flight.add(trial.number)
        return partial(run, trial, is_new)

    def may_start() -> bool:
        if time.monotonic() > deadline or len(study.failed()) > config.max_failures:
            return False
        is_planned = bool(study.trials(TrialState.WAITING))
        if is_planned != (config.sampler is Sampler.grid):
            return is_planned  # a grid has only planned points; for the others the planned point is the baseline
        return count_finished(study.trials()) + len(in_flight) < config.num_trials

    def run(trial: Trial, is_new: bool, executor: Executor) -> None:
        try:
            run_trial(trial, executor, plan, study, trainings, is_new=is_new)
        finally:
            with lock:
                in_flight.discard(trial.number)

    best = next((trial.value for trial in study.ranked()), None)
    num_done = count_finished(study.trials())
    trainings.progress.begin(stage="trials", num_done=num_done, num_total=config.num_trials, best=best)
    pool.run(Jobs(is_left, take))
    trainings.stop.check()
    num_missing = config.num_trials - count_finished(study.trials())
    if num_missing > 0 and time.monotonic() > deadline:
        _log.warning("sweep.timeout_sec=%g has passed: %d trials were not started", config.timeout_sec, num_missing)


def require_few_failures(study: Study, config: SweepConfig) -> None:
    """Raise UserError if more trials failed than `sweep.max_failures`."""
    failed = study.failed()
    if len(failed) > config.max_failures:
        raise UserError(
            f"{len(failed)} trials failed, more than sweep.max_failures={config.max_failures}; the last: "
            f"{failed[-1].user_attrs.get(REASON)}"
        )


def describe_failures(study: Study, config: SweepConfig) -> str | None:
    """Return in one line how many trials failed, and what happened to their points; None if none failed."""
    diverged, broken = study.failed(Cause.diverged), study.failed(Cause.error)
    num_failed = len(diverged) + len(broken)
    if not num_failed:
        return None
    text = f"{num_failed} {'trial' if num_failed == 1 else 'trials'} failed"
    if config.sampler is Sampler.grid:
        numbers = ", ".join(str(trial.number) for trial in diverged)
        if diverged:
            text += f"; the grid has no value for points whose loss was not finite: trial {numbers}"
        if broken:
            is_left = bool(study.trials(TrialState.WAITING))
            text += "; " + ("the same command tries the rest again" if is_left else "the rest was tried again")
    elif count_finished(study.trials()) >= config.num_trials:
        text += f" and {'was' if num_failed == 1 else 'were'} replaced"
    return f"{text}: the table in MLflow has the reasons"


def run_trial(
    trial: Trial, executor: Executor, plan: SweepPlan, study: Study, trainings: Trainings, *, is_new: bool = False
) -> None:
    """Train one trial. Optuna is told after its run is closed: if killed in between, it is adopted and closed again."""
    metric = plan.config.metric
    num_reported = 0 if is_new else max(study.trials()[trial.number].intermediate_values, default=0)

    def decide(point: Point) -> bool:
        with study.reporting_errors():
            if point.number > num_reported:
                trial.report(point.metrics[metric], point.number)
            # What was reported before a kill was decided then, except for the last report.
            return point.number >= num_reported and trial.should_prune()

    try:
        trained = trainings.train(
            executor,
            plan.config.space.apply(plan.base, trial.params),
            kind=Kind.TRIAL,
            label=f"trial {trial.number}",
            tags={Tag.TRIAL_NUMBER: str(trial.number)},
            is_new=is_new,
            decide=decide,
        )
    except TrainingFailedError as error:
        study.fail(trial, error.failure)
        return
    with study.reporting_errors():
        trial.set_user_attr(RUN, trained.run_id)
        if trained.source:
            trial.set_user_attr(SOURCE, trained.source)
    study.tell(trial, TrialState.PRUNED if trained.is_pruned else TrialState.COMPLETE, value=trained.value)
