"""Trainings: each one a child of the sweep's run, tracked epoch by epoch, taken over from where it was done before."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mnist_pipeline.config.sections import Config
from mnist_pipeline.pipeline.fingerprint import training_fingerprint
from mnist_pipeline.pipeline.names import describe_training, name_run
from mnist_pipeline.sweep.executors.local import Member, Stop
from mnist_pipeline.sweep.executors.worker import Task
from mnist_pipeline.sweep.failure import HinderedError, TrainingFailedError
from mnist_pipeline.sweep.plan import Setting
from mnist_pipeline.sweep.space import read_params
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking.record import Kind, Metric, Point, Tag
from mnist_pipeline.tracking.tracker import RecordedTraining, Run, RunSpec, Tracker


class Progress(Protocol):
    """Hears what happens; from several threads, one call at a time."""

    def begin(self, *, what: str, num_done: int, num_total: int, best: float | None = None) -> None:
        """A stage with `num_total` trainings begins, of which `num_done` are done, the best with the value `best`."""

    def train(self, member: int, *, name: str, point: Point, num_epochs: int) -> None:
        """An epoch of the training `name` has ended."""

    def finish(self, member: int, *, name: str, outcome: str, value: float | None) -> None:
        """A training has ended, for good or bad."""


@dataclass(frozen=True)
class Trained:
    """A training that was not interrupted.

    Attributes:
        value: Of the metric, at the last epoch that was trained.
        source: The run that trained the same before, and was taken over as far as it went.
    """

    run_id: str
    value: float
    is_pruned: bool
    source: str | None


class Trainings:
    """Tracks one training after the other as a child of the sweep's run; used by every member of the crew at once."""

    def __init__(
        self, what: Setting, study: Study, parent: Run, tracker: Tracker, progress: Progress, stop: Stop
    ) -> None:
        self.stop = stop
        self.progress = progress
        self._what = what
        self._study = study
        self._parent = parent
        self._tracker = tracker
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()

    def train(
        self,
        member: Member,
        config: Config,
        *,
        kind: str,
        label: str,
        tags: Mapping[str, str],
        decide: Callable[[Point], bool] = lambda point: False,
    ) -> Trained:
        """Train as `config` says, and track it. What was trained before, by any run, is taken from there.

        Args:
            member: Has the worker.
            config: What to train.
            kind: Of the run.
            label: Which training of the sweep it is; ties the run to it if it is interrupted.
            tags: Of the run.
            decide: Is asked after every epoch whether to end the training; after the last it makes no difference.

        Raises:
            TrainingFailedError: The run is then FAILED, with the reason.
            UserError: What surrounds the training kept it from its end. The run is FAILED until a command resumes it.
        """
        mark = training_fingerprint(config, data_digest=self._what.request.found.digest)
        known = self._tracker.find_training(mark)
        with (
            self._folder(mark) as folder,
            self._tracker.run(
                RunSpec(
                    kind=kind,
                    name=f"{label} {name_run(config)}" if kind == Kind.TRIAL else label,
                    description=f"{label.capitalize()} of the sweep {markdown(self._study.name)}: "
                    f"{describe_training(config)}.",
                    params=config.flat(),
                    tags={
                        **tags,
                        Tag.PARENT: self._parent.run_id,
                        Tag.STUDY: self._study.name,
                        Tag.DATA_DIGEST: self._what.request.found.digest,
                        Tag.TRAINING_FINGERPRINT: mark,
                    },
                    resume_id=f"{self._study.id} {label}",
                )
            ) as tracked,
        ):
            source = known.run_id if known and known.points and known.run_id != tracked.run_id else None
            if source:
                tracked.set_tags({Tag.SOURCE_RUN: source})
            logged = tracked.list_steps(Metric.TRAIN_LOSS) if tracked.is_resumed else set()
            num_epochs = config.train.num_epochs
            is_pruned, train_sec = False, 0.0
            try:
                with contextlib.closing(self._points(member, label, Task(config, folder), known)) as points:
                    for point in points:
                        if point.number not in logged:
                            tracked.log_metrics(point.metrics, step=point.number, timestamp_ms=point.ended_ms)
                        train_sec += point.metrics[Metric.EPOCH_SEC]
                        self.progress.train(member.index, name=label, point=point, num_epochs=num_epochs)
                        self.stop.check()
                        is_pruned = decide(point) and point.number < num_epochs
                        if is_pruned:
                            break
            except TrainingFailedError as error:
                tracked.set_tags({Tag.TRIAL_STATE: "FAIL"})
                self.progress.finish(member.index, name=label, outcome=f"failed: {error}", value=None)
                raise
            total = {Metric.TRAIN_SEC: train_sec}
            tracked.log_metrics(total, step=point.number, timestamp_ms=point.ended_ms)
            tracked.set_tags({Tag.TRIAL_STATE: "PRUNED" if is_pruned else "COMPLETE"})
        value = point.metrics[self._what.config.metric]
        outcome = f"{'pruned after' if is_pruned else 'done,'} {point.number} of {num_epochs} epochs"
        self.progress.finish(member.index, name=label, outcome=outcome, value=value)
        return Trained(run_id=tracked.run_id, value=value, is_pruned=is_pruned, source=source)

    def _points(self, member: Member, label: str, task: Task, known: RecordedTraining | None) -> Generator[Point]:
        num_epochs = task.config.train.num_epochs
        replayed = known.points[:num_epochs] if known else ()
        yield from replayed
        if len(replayed) == num_epochs:
            return
        try:
            yield from member.train(task, after=len(replayed))
        except HinderedError as error:
            values = read_params(task.config, self._what.config.space)
            shown = ", ".join(f"{key}={value}" for key, value in values.items())
            raise UserError(
                f"{error}: {label} ({shown}) stopped and does not count as failed; {error.failure.next_step}"
            ) from error

    @contextlib.contextmanager
    def _folder(self, mark: str) -> Iterator[Path]:
        """Yield the folder of a training's checkpoints; the same training on another worker has one of its own."""
        with self._lock:
            name = mark
            while name in self._in_flight:
                name += "+"
            self._in_flight.add(name)
        try:
            yield paths.checkpoints_dir() / self._study.id / name
        finally:
            self._in_flight.discard(name)
