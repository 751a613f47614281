"""The story of a sweep: search, confirm, train the winner, each tracked as it happens, any of it resumable."""

import dataclasses
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mnist_pipeline.config.sections import Config
from mnist_pipeline.pipeline.provenance import code_tags
from mnist_pipeline.pipeline.request import Request, data_tags, retarget
from mnist_pipeline.sweep import confirm
from mnist_pipeline.sweep.artifacts import log_search, log_surroundings, log_verdict
from mnist_pipeline.sweep.confirm import Pair, Verdict
from mnist_pipeline.sweep.executors.local import Crew, Job, Member, Stop
from mnist_pipeline.sweep.failure import Cause, TrainingFailedError
from mnist_pipeline.sweep.plan import Setting, describe_config, describe_sweep
from mnist_pipeline.sweep.search import describe_failures, require_few_failures, search
from mnist_pipeline.sweep.space import SweepConfig, apply
from mnist_pipeline.sweep.storage import journal_path
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.sweep.trainings import Progress, Trainings
from mnist_pipeline.system import paths, quiet
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.locks import hold
from mnist_pipeline.system.versions import count_usable_cores
from mnist_pipeline.tracking.record import Kind, Metric, RunRecord, Tag
from mnist_pipeline.tracking.tracker import Run, RunSpec, Tracker

if TYPE_CHECKING:
    from mnist_pipeline.pipeline.run import RunResult

BASELINE = "baseline"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep comes to.

    Attributes:
        baseline: What the trials are compared with.
        verdict: Of the confirmation; None where there was none.
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
        """How many trials of the study failed, and what became of them; None where none did."""
        return describe_failures(self.study, self.config)


def sweep(request: Request, config: SweepConfig, tracker: Tracker, *, progress: Progress, stop: Stop) -> SweepResult:
    """Search, confirm and train the winner; go on with what an earlier command has done of it.

    Raises:
        UserError: Another command is at this study, it was made of something else, or too many trials failed.
    """
    what = Setting(request, config)
    name = config.study or what.default_name()
    lock = journal_path(name).with_suffix(".lock")
    with hold(lock, what=f"the study {name}", wait=request.config.wait, next_step="(or give sweep.study another name)"):
        study = Study(config, name=name, identity=what.identity(), max_epochs=what.max_epochs())
        study.plan(what.baseline if what.has_baseline() else None)
        started = time.perf_counter()
        with tracker.run(
            RunSpec(
                kind=Kind.SWEEP,
                name=f"sweep {name}",
                description=describe_sweep(config, request),
                params={**what.base.flat(), **describe_config(config)},
                tags={**data_tags(request), **code_tags(), Tag.STUDY: name},
                resume_id=study.id,
            )
        ) as parent:
            log_surroundings(request, parent)
            trainings = Trainings(what, study, parent, tracker, progress, stop)
            crew = Crew(request.found, num_workers=config.num_workers or count_usable_cores(), stop=stop)
            try:
                search(what, study, crew, trainings)
                log_search(study, config, parent)
                require_few_failures(study, config)
                verdict = confirm_best(what, study, crew, trainings) if config.confirm else None
            finally:
                crew.stop()
            final = None
            if verdict is not None:
                winner = winning_params(verdict, study, what)
                log_verdict(verdict, winner, parent, study=study)
                final = train_winner(what, winner, study, parent, tracker, stop)
            now = time.time_ns() // 1_000_000
            parent.log_metrics({Metric.TOTAL_SEC: time.perf_counter() - started}, step=0, timestamp_ms=now)
        shutil.rmtree(paths.checkpoints_dir() / study.id, ignore_errors=True)
    return SweepResult(study=study, config=config, baseline=what.baseline, parent=parent, verdict=verdict, final=final)


def confirm_best(what: Setting, study: Study, crew: Crew, trainings: Trainings) -> Verdict:
    """Train the best trials and the baseline on fresh pairs of seeds, the same for all, and compare them.

    Raises:
        UserError: One of these trainings failed.
    """
    config = what.config
    assert config.confirm is not None
    candidates: dict[str, Mapping[str, Any]] = {BASELINE: what.baseline}
    for trial in study.ranked():
        if len(candidates) <= config.confirm.top_k and trial.params not in candidates.values():
            candidates[f"trial {trial.number}"] = trial.params
    pairs = confirm.draw_pairs(config.seed, num_pairs=config.confirm.num_seeds, taken=study_pair(what.base))
    pending = [(name, number, pair) for number, pair in enumerate(pairs, start=1) for name in candidates]
    values: dict[tuple[str, Pair], float] = {}
    lock = threading.Lock()

    def next_job() -> Job | None:
        with lock:
            return partial(run, *pending.pop(0)) if pending and not trainings.stop.is_set else None

    def run(name: str, number: int, pair: Pair, member: Member) -> None:
        seeded = with_pair(apply(what.base, candidates[name]), pair)
        label = f"confirm {name} #{number}"
        try:
            trained = trainings.train(member, seeded, kind=Kind.CONFIRM, label=label, tags={Tag.CONFIRMED: name})
        except TrainingFailedError as error:
            is_final = error.failure.cause is Cause.diverged
            next_step = "narrow sweep.space, or give sweep.confirm=null" if is_final else "run the same command again"
            raise UserError(f"the confirmation of {name} failed ({error}): {next_step}") from error
        values[name, pair] = trained.value

    trainings.progress.begin(what="confirmation", num_done=0, num_total=len(pending))
    crew.run(next_job)
    trainings.stop.check()
    scores = {name: [values[name, pair] for pair in pairs] for name in candidates}
    baseline = scores.pop(BASELINE)
    return confirm.compare(baseline, scores, direction=config.direction)


def study_pair(config: Config) -> Pair:
    """Return the seeds of the study's own trainings."""
    return Pair(train_seed=config.train.seed, split_seed=config.data.split_seed)


def with_pair(config: Config, pair: Pair) -> Config:
    """Return `config` with other seeds."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, seed=pair.train_seed),
        data=dataclasses.replace(config.data, split_seed=pair.split_seed),
    )


def winning_params(verdict: Verdict, study: Study, what: Setting) -> Mapping[str, Any]:
    """Return the values of the swept keys that won."""
    if verdict.winner is None:
        return what.baseline
    return study.trials()[int(verdict.winner.removeprefix("trial "))].params


def train_winner(
    what: Setting, params: Mapping[str, Any], study: Study, parent: Run, tracker: Tracker, stop: Stop
) -> "RunResult | RunRecord":
    """Train the winner with the study's split and a fresh seed, score it on the test split, and log its model: once."""
    (fresh,) = confirm.draw_pairs(what.config.seed + 1, num_pairs=1, taken=study_pair(what.base))
    pair = Pair(train_seed=fresh.train_seed, split_seed=what.base.data.split_seed)
    config = with_pair(apply(what.base, params), pair)
    request = retarget(what.request, config)
    tags = {Tag.KIND: Kind.FINAL, Tag.STUDY: study.name, Tag.FINGERPRINT: request.tags[Tag.FINGERPRINT]}
    past = tracker.find_finished(tags)
    if past is not None:
        return past
    with quiet.library_noise():  # only now: TensorFlow takes seconds
        from mnist_pipeline.pipeline import run
        from mnist_pipeline.pipeline.checkpoints import Checkpoints

    folder = paths.checkpoints_dir() / study.id / request.tags[Tag.FINGERPRINT]
    checkpoints = Checkpoints(folder)
    tags = {Tag.STUDY: study.name, Tag.PARENT: parent.run_id}
    return run.carry_out(request, tracker, checkpoints, kind=Kind.FINAL, tags=tags, on_epoch=lambda _: stop.check())
