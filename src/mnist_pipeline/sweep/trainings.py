"""The trainings of a sweep: each is a child of the sweep's run, tracked epoch by epoch, and reuses tracked epochs."""

import contextlib
import enum
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from mnist_pipeline.config.sections import Config
from mnist_pipeline.executors.executor import Executor, Task
from mnist_pipeline.executors.failure import HinderedError, TrainingFailedError
from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.pipeline.checkpoints import Checkpoints
from mnist_pipeline.pipeline.fingerprint import describe_identity, training_fingerprint
from mnist_pipeline.pipeline.names import describe_training, name_settings
from mnist_pipeline.sweep.plan import SweepPlan
from mnist_pipeline.sweep.study import Study
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.text import markdown
from mnist_pipeline.tracking.record import Artifact, Kind, Metric, Point, Tag, name_kept, tabulate_points
from mnist_pipeline.tracking.tracker import RecordedTraining, Run, RunSpec, Tracker, log_contents
from mnist_pipeline.train.early_stopping import find_kept, is_complete


class Ending(enum.Enum):
    """How a training ended."""

    complete = "COMPLETE"
    pruned = "PRUNED"
    failed = "FAIL"


class Progress(Protocol):
    """Follows a sweep; called from several threads."""

    def begin(self, *, stage: str, num_done: int, num_total: int, best: float | None = None) -> None:
        """A stage starts: `num_done` of its `num_total` trainings are done, the best with the value `best`."""

    def wait(self, what: str | None) -> None:
        """The sweep waits for something; None: no longer."""

    def train(self, executor: int, *, name: str, point: Point, num_epochs: int) -> None:
        """An epoch of the training `name` has ended on the executor with this index."""

    def finish(self, executor: int, *, name: str, ending: Ending, detail: str, value: float | None) -> None:
        """A training has ended; `detail` says after how many epochs, or why it failed."""


@dataclass(frozen=True)
class Trained:
    """A training that ended by itself or was pruned.

    Attributes:
        value: Of the metric, at the last epoch that was trained, or at the one that early stopping kept.
        source: The run whose epochs were reused.
    """

    run_id: str
    value: float
    is_pruned: bool
    source: str | None


class Trainings:
    """Tracks trainings as children of the sweep's run; used by all executors at once.

    They have the tags about its code, and readers find its versions, machine and patch for them. The first of them may
    begin while the sweep's run is being opened.
    """

    def __init__(
        self,
        plan: SweepPlan,
        study: Study,
        parent: Future[Run],
        tracker: Tracker,
        progress: Progress,
        stop: StopRequest,
        *,
        code: Mapping[str, str],
    ) -> None:
        self.stop = stop
        self.progress = progress
        self._plan = plan
        self._study = study
        self._parent = parent
        self._tracker = tracker
        self._code = code
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()

    def train(
        self,
        executor: Executor,
        config: Config,
        *,
        kind: str,
        label: str,
        tags: Mapping[str, str],
        is_new: bool = False,
        decide: Callable[[Point], bool] = lambda point: False,
    ) -> Trained:
        """Carry out a training and track it. Epochs that any run has tracked before are reused.

        Args:
            executor: Carries it out.
            config: Of the training.
            kind: Of the run.
            label: Which training of the sweep it is; an interrupted run is found again by it.
            tags: Of the run.
            is_new: Whether no earlier command can have begun it.
            decide: Called after every epoch; returns whether to prune. After the last epoch it makes no difference.

        Raises:
            TrainingFailedError: The run is then FAILED, with the reason.
            UserError: Something outside the training stopped it. The run is FAILED until a command resumes it.
        """
        fingerprint = training_fingerprint(config, data_digest=self._plan.request.found.identity)
        known = self._tracker.find_training(fingerprint)
        watched = config.train.early_stopping.metric.value
        points: list[Point] = []
        values: list[float] = []
        with contextlib.ExitStack() as stack:
            task = Task(config, self._plan.request.found, stack.enter_context(self._checkpoints(fingerprint)))
            if known is None or not known.points:
                executor.begin(task)  # it trains while its run is opened
            spec = self._specify(config, kind=kind, label=label, tags=tags, is_new=is_new, fingerprint=fingerprint)
            tracked = stack.enter_context(self._tracker.run(spec))
            source = known.run_id if known and known.points and known.run_id != tracked.run_id else None
            if source:
                tracked.set_tags({Tag.SOURCE_RUN: source})
            logged = tracked.list_steps(Metric.TRAIN_LOSS) if tracked.is_resumed else set()
            # A resumed run too: it may have been killed before they were logged.
            log_contents(tracked, {Artifact.CONFIG: config.to_yaml()})
            identity = describe_identity(config, data_digest=self._plan.request.found.identity)
            log_contents(tracked, {Artifact.IDENTITY: identity})
            is_pruned = False
            try:
                with contextlib.closing(self._epochs(executor, label, task, known)) as epochs:
                    for point in epochs:
                        self._study.require_owned()
                        if point.number not in logged:
                            tracked.log_metrics(point.metrics, step=point.number, timestamp_ms=point.ended_ms)
                        points.append(point)
                        values.append(point.metrics.get(watched, 0.0))
                        self.progress.train(executor.index, name=label, point=point, num_epochs=config.train.num_epochs)
                        self.stop.check()
                        is_last = is_complete(values, config.train)
                        is_pruned = decide(point) and not is_last
                        if is_pruned or is_last:
                            break
            except TrainingFailedError as error:
                tracked.set_tags({Tag.TRIAL_STATE: Ending.failed.value})
                self._report_end(executor, label, Ending.failed, detail=str(error), value=None)
                raise
            ending = Ending.pruned if is_pruned else Ending.complete
            kept = points[find_kept(values, config.train.early_stopping) - 1]
            metrics = {Metric.TRAIN_SEC: sum(one.metrics[Metric.EPOCH_SEC] for one in points)}
            if config.train.early_stopping.patience is not None:
                metrics |= name_kept(kept.number, kept.metrics)
            tracked.log_metrics(metrics, step=point.number, timestamp_ms=point.ended_ms)
            log_contents(tracked, {Artifact.HISTORY: tabulate_points(points).to_csv(index=False)})
            tracked.set_tags({Tag.TRIAL_STATE: ending.value})
        value = kept.metrics[self._plan.config.metric]
        detail = f"{point.number} of {config.train.num_epochs} epochs"
        self._report_end(executor, label, ending, detail=detail, value=value)
        return Trained(run_id=tracked.run_id, value=value, is_pruned=is_pruned, source=source)

    def _specify(
        self, config: Config, *, kind: str, label: str, tags: Mapping[str, str], is_new: bool, fingerprint: str
    ) -> RunSpec:
        title = f"{label.capitalize()} of the sweep {markdown(self._study.name)}"
        return RunSpec(
            kind=kind,
            name=f"{label} {self._name(config)}" if kind == Kind.TRIAL else label,
            description=f"{title}: {describe_training(config)}.",
            params=config.flat(),
            tags={
                **self._code,
                **tags,
                Tag.PARENT: self._parent.result().run_id,
                Tag.STUDY: self._study.name,
                Tag.DATA_DIGEST: self._plan.request.found.digest,
                Tag.TRAINING_FINGERPRINT: fingerprint,
            },
            resume_id=f"{self._study.id} {label}",
            is_new=is_new,
        )

    def _name(self, config: Config) -> str:
        """Return the name of a trial: what trials differ in."""
        settings = name_settings(config)
        return f"{config.model.name}-{settings}" if "model" in self._plan.config.space.options else settings

    def _report_end(self, executor: Executor, label: str, ending: Ending, *, detail: str, value: float | None) -> None:
        self.progress.finish(executor.index, name=label, ending=ending, detail=detail, value=value)

    def _epochs(self, executor: Executor, label: str, task: Task, known: RecordedTraining | None) -> Generator[Point]:
        """Yield the tracked epochs, then those that are trained; it is closed where the training is over."""
        replayed = known.points if known else ()
        yield from replayed
        try:
            yield from executor.train(task, after=len(replayed))
        except HinderedError as error:
            values = self._plan.config.space.read(task.config)
            shown = ", ".join(f"{key}={value}" for key, value in values.items())
            raise UserError(
                f"{error}: {label} ({shown}) stopped and does not count as failed; {error.failure.next_step}"
            ) from error

    @contextlib.contextmanager
    def _checkpoints(self, fingerprint: str) -> Iterator[Checkpoints]:
        """Yield the checkpoints of a training; the same training on another executor gets a folder of its own."""
        with self._lock:
            name = fingerprint
            while name in self._in_flight:
                name += "+"
            self._in_flight.add(name)
        try:
            yield Checkpoints(paths.checkpoints_dir() / self._study.id / name)
        finally:
            self._in_flight.discard(name)
