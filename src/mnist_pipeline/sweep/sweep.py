"""The story of a sweep: search, confirm, train the winner. Each step is tracked as it happens, and can be resumed."""

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mnist_pipeline.config.sections import Config
from mnist_pipeline.executors.executor import Executor, NoWorkerError
from mnist_pipeline.executors.failure import Cause, TrainingFailedError
from mnist_pipeline.executors.places import open_places
from mnist_pipeline.executors.pool import ExecutorPool, Job, Jobs, Places, StopRequest
from mnist_pipeline.pipeline.provenance import code_tags
from mnist_pipeline.pipeline.request import Request, data_tags, retarget
from mnist_pipeline.sweep import confirm
from mnist_pipeline.sweep.artifacts import log_conclusion, log_search, log_surroundings, log_verdict
from mnist_pipeline.sweep.confirm import Comparison, Outcome, Pair, Verdict
from mnist_pipeline.sweep.ownership import own
from mnist_pipeline.sweep.plan import SweepPlan, describe_sweep, list_tags
from mnist_pipeline.sweep.search import describe_failures, require_few_failures, search
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.sweep.trainings import Progress, Trainings
from mnist_pipeline.system import paths, quiet
from mnist_pipeline.system.aside import short_turns
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.patience import OnWait, Patience
from mnist_pipeline.tracking.absence import is_away
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker
from mnist_pipeline.tracking.record import Kind, Metric, RunRecord, Tag
from mnist_pipeline.tracking.tracker import Run, RunSpec, Tracker

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.run import RunResult
    from mnist_pipeline.train.epochs import Epoch

BASELINE = "baseline"

PATIENCE_KEY = "sweep.patience_sec"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
        baseline: The values that the trials are compared with.
        verdict: Of the confirmation; None if there was none.
        final: The winner, trained once more and scored on the test split; None without a confirmation.
    """

    study: Study
    config: SweepConfig
    baseline: Mapping[str, Any]
    parent: Run
    verdict: Verdict | None
    final: "RunResult | RunRecord | None"

    @property
    def failures(self) -> str | None:
        """How many trials of the study failed, and what happened to them; None if none did."""
        return describe_failures(self.study, self.config)


def sweep(
    request: Request, config: SweepConfig, tracker: Tracker, *, progress: Progress, stop: StopRequest
) -> SweepResult:
    """Search, confirm and train the winner; resume from whatever an earlier command has done.

    Raises:
        UserError: The study is in use, it belongs to another sweep, or too many trials failed.
    """
    plan = SweepPlan(request, config)
    name = config.study or plan.default_name()
    patience = Patience(
        f"the database of the study {name}",
        config.patience_sec,
        key=PATIENCE_KEY,
        is_away=is_away,
        on_wait=follow_waits(progress, stop),
    )
    with own(config.storage, name, wait=request.config.wait, on_wait=stop.check, patience=patience) as owner:
        study = Study(
            config,
            name=name,
            identity=plan.identity(),
            max_epochs=plan.max_epochs(),
            owner=owner,
            patience=patience,
        )
        study.enqueue_planned(plan.baseline if plan.has_baseline() else None)
        started = time.perf_counter()
        code = code_tags()
        spec = RunSpec(
            kind=Kind.SWEEP,
            name=f"sweep {name}",
            description=describe_sweep(config, request),
            params={},
            tags={**data_tags(request), **code, **list_tags(config), Tag.STUDY: name},
            resume_id=study.id,
        )
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(max_workers=1) as opener:

            def open_parent() -> Run:
                with short_turns():
                    run = stack.enter_context(tracker.run(spec))
                    log_surroundings(plan, run)
                return run

            # MLflow takes three seconds to import and to create a store: meanwhile the first trials are trained.
            opening = opener.submit(open_parent)
            trainings = Trainings(plan, study, opening, tracker, progress, stop, code=code)
            places = open_sweep_places(plan, progress, stop, opening)
            pool = ExecutorPool(places, stop=stop)
            try:
                search(plan, study, pool, trainings)
                parent = opening.result()
                log_search(study, config, parent)
                require_few_failures(study, config)
                confirmation = confirm_best(plan, study, pool, trainings) if config.confirm else None
            finally:
                pool.close()
            final = None
            if confirmation is not None:
                log_verdict(confirmation.verdict, confirmation.winning_params, plan.base, parent, study=study)
                final = train_winner(plan, confirmation.winning_params, study, parent, tracker, stop)
            log_conclusion(plan, study, parent, confirmation.verdict if confirmation else None, final)
            now = time.time_ns() // 1_000_000
            parent.log_metrics({Metric.TOTAL_SEC: time.perf_counter() - started}, step=0, timestamp_ms=now)
        shutil.rmtree(paths.checkpoints_dir() / study.id, ignore_errors=True)
    verdict = confirmation.verdict if confirmation else None
    return SweepResult(study=study, config=config, baseline=plan.baseline, parent=parent, verdict=verdict, final=final)


def open_tracker(request: Request, config: SweepConfig, progress: Progress, stop: StopRequest) -> Tracker:
    """Return the tracker of a sweep: it waits for a server that is away, as long as the sweep does.

    Raises:
        UserError: The store cannot be opened.
    """
    return MlflowTracker(
        request.config.tracking,
        patience_sec=config.patience_sec,
        key=PATIENCE_KEY,
        on_wait=follow_waits(progress, stop),
    )


def open_sweep_places(plan: SweepPlan, progress: Progress, stop: StopRequest, parent: Future[Run]) -> Places:
    """Return where the trainings of a sweep are carried out; other processors become a tag of the sweep's run.

    Raises:
        UserError: The cluster is gone.
    """
    others: list[str] = []

    def note(other: str) -> None:
        others.append(other)
        parent.result().set_tags({Tag.OTHER_PROCESSORS: "; ".join(sorted(others))})

    return open_places(
        plan.base.executor,
        modules=plan.list_modules(),
        num_workers=plan.config.num_workers,
        on_wait=follow_waits(progress, stop),
        on_other_cpu=note,
    )


def follow_waits(progress: Progress, stop: StopRequest) -> OnWait:
    """Return what shows the waits of a sweep, and ends them when it is to stop."""

    def on_wait(what: str | None) -> None:
        stop.check()
        progress.wait(what)

    return on_wait


@dataclass(frozen=True)
class Confirmation:
    """The verdict of the confirmation, and the values of the swept keys that won."""

    verdict: Verdict
    winning_params: Mapping[str, Any]


def confirm_best(plan: SweepPlan, study: Study, pool: ExecutorPool, trainings: Trainings) -> Confirmation:
    """Train the best trials and the baseline on fresh pairs of seeds, the same for all, until their case is clear.

    Raises:
        UserError: One of these trainings failed.
    """
    config = plan.config
    assert config.confirm is not None
    candidates = choose_candidates(plan, study, top_k=config.confirm.top_k)
    design = confirm.plan_looks(config.confirm, num_candidates=len(candidates) - 1, direction=config.direction)
    pairs = confirm.draw_pairs(config.seed, num_pairs=design.looks[-1], taken=study_pair(plan.base))
    values: dict[str, dict[int, float]] = {name: {} for name in candidates}
    pending: list[tuple[str, int]] = []

    def take() -> Job | None:
        return partial(run, *pending.pop(0)) if pending else None

    def run(name: str, number: int, executor: Executor) -> None:
        seeded = with_pair(config.space.apply(plan.base, candidates[name]), pairs[number - 1])
        label = f"confirm {name} #{number}"
        try:
            trained = trainings.train(executor, seeded, kind=Kind.CONFIRM, label=label, tags={Tag.CONFIRMED: name})
        except TrainingFailedError as error:
            is_final = error.failure.cause is Cause.diverged
            next_step = "narrow sweep.space, or give sweep.confirm=null" if is_final else "run the same command again"
            raise UserError(f"the confirmation of {name} failed ({error}): {next_step}") from error
        except NoWorkerError:
            pending.insert(0, (name, number))
            raise
        values[name][number] = trained.value

    looks: list[list[Comparison]] = []
    going_on = [name for name in candidates if name != BASELINE]
    while going_on and len(looks) < len(design.looks):
        num_before = design.looks[len(looks) - 1] if looks else 0
        num_pairs = design.looks[len(looks)]
        numbers = range(num_before + 1, num_pairs + 1)
        pending.extend((name, number) for number in numbers for name in (BASELINE, *going_on))
        num_done = sum(map(len, values.values()))
        trainings.progress.begin(stage="confirmation", num_done=num_done, num_total=num_done + len(pending))
        pool.run(Jobs(lambda: bool(pending), take))
        trainings.stop.check()
        scores = {name: [values[name][number] for number in range(1, num_pairs + 1)] for name in (BASELINE, *going_on)}
        looks.append(
            [design.compare(name, scores[name], scores[BASELINE], look=len(looks)) for name in going_on],
        )
        _log.info("look      after %d pairs: %s", num_pairs, "; ".join(one.describe() for one in looks[-1]))
        going_on = [one.name for one in looks[-1] if one.outcome is Outcome.undecided]
    verdict = confirm.conclude(looks, design)
    return Confirmation(verdict, candidates[verdict.winner or BASELINE])


def choose_candidates(plan: SweepPlan, study: Study, *, top_k: int) -> dict[str, Mapping[str, Any]]:
    """Return the values of the swept keys to confirm, by name: the baseline's, then those of the best trials."""
    candidates: dict[str, Mapping[str, Any]] = {BASELINE: plan.baseline}
    for trial in study.ranked():
        if len(candidates) <= top_k and trial.params not in candidates.values():
            candidates[f"trial {trial.number}"] = trial.params
    return candidates


def study_pair(config: Config) -> Pair:
    """Return the seeds of the study's own trainings."""
    return Pair(train_seed=config.train.seed, split_seed=config.data.split_seed)


def with_pair(config: Config, pair: Pair) -> Config:
    """Return `config` with the seeds of `pair`."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, seed=pair.train_seed),
        data=dataclasses.replace(config.data, split_seed=pair.split_seed),
    )


def train_winner(
    plan: SweepPlan, params: Mapping[str, Any], study: Study, parent: Run, tracker: Tracker, stop: StopRequest
) -> "RunResult | RunRecord":
    """Train the winner once, with the study's split and a fresh seed; score it on the test split and log its model."""
    (fresh,) = confirm.draw_pairs(plan.config.seed + 1, num_pairs=1, taken=study_pair(plan.base))
    pair = Pair(train_seed=fresh.train_seed, split_seed=plan.base.data.split_seed)
    request = retarget(plan.request, with_pair(plan.config.space.apply(plan.base, params), pair))
    fingerprint = request.tags[Tag.FINGERPRINT]
    past = tracker.find_finished({Tag.KIND: Kind.FINAL, Tag.STUDY: study.name, Tag.FINGERPRINT: fingerprint})
    if past is not None:
        return past
    with quiet.library_noise():  # here, because TensorFlow takes seconds to import
        from mnist_pipeline.pipeline.checkpoints import Checkpoints
        from mnist_pipeline.pipeline.stages import carry_out

    def on_epoch(epoch: "Epoch") -> None:
        stop.check()
        study.require_owned()

    return carry_out(
        request,
        tracker,
        Checkpoints(paths.checkpoints_dir() / study.id / fingerprint),
        kind=Kind.FINAL,
        tags={Tag.STUDY: study.name, Tag.PARENT: parent.run_id},
        on_epoch=on_epoch,
    )
