"""Runs are tracked in MLflow here, and nowhere else."""

import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system import processes
from mnist_pipeline.system.errors import TakenOverError, Terminated, UserError
from mnist_pipeline.system.patience import OnWait, Patience
from mnist_pipeline.tracking import integrity, runs, store
from mnist_pipeline.tracking.absence import is_away, is_of_store
from mnist_pipeline.tracking.database_errors import explain, is_locked
from mnist_pipeline.tracking.mlflow_store import MlflowStore, user
from mnist_pipeline.tracking.reading import FINISHED, StoredPoint, StoredRun
from mnist_pipeline.tracking.record import EPOCH_METRICS, Kind, Point, RunRecord, Tag
from mnist_pipeline.tracking.tracker import PausedError, RecordedTraining, Run, RunSpec

_NAMED = (Kind.TRAIN, Kind.FINAL, Kind.REPRODUCTION)
"""The kinds of runs that people name."""

if TYPE_CHECKING:
    from mnist_pipeline.tracking.mlflow_run import MlflowRun
    from mnist_pipeline.tracking.outbox import BufferedRun

_log = logging.getLogger(__name__)


class MlflowTracker:
    """Opens runs in the MLflow store of a configuration, with patience if its server is away.

    Args:
        config: Names the store.
        patience_sec: How long a server that is away is waited for; by default as the configuration says.
        key: The setting that says so, for messages.
        on_wait: See `patience.OnWait`.

    Raises:
        UserError: The store cannot be opened, or the experiment was deleted.
    """

    def __init__(
        self,
        config: TrackingConfig,
        *,
        patience_sec: float | None = None,
        key: str = "tracking.patience_sec",
        on_wait: OnWait = lambda what: None,
    ) -> None:
        self._patience = Patience(
            f"the tracking store {store.resolve_uri(config)}",
            config.patience_sec if patience_sec is None else patience_sec,
            key=key,
            is_away=is_away,
            on_wait=on_wait,
        )
        self._store = MlflowStore(config, self._patience)
        self._client = self._store.client
        self._experiment = config.experiment
        self._found_experiment: str | None = None
        if store.is_server(self._store.uri):
            self._send_left()
        self._shown: set[str] = set()
        self._showing = threading.Lock()

    def _send_left(self) -> None:
        """Send what earlier commands could not send."""
        from mnist_pipeline.tracking import outbox

        for left in outbox.list_left():
            if left.uri == str(self._store.uri):
                try:
                    outbox.send_left(self._store, left)
                except UserError as error:
                    _log.warning("%s", error)

    @property
    def _experiment_id(self) -> str:
        """The id of the experiment; it is created if there is none."""
        if self._found_experiment is None:
            self._found_experiment = self._store.require_experiment(self._experiment)
        return self._found_experiment

    @functools.cached_property
    def _experiment_ids(self) -> list[str]:
        """The ids of all experiments, this one included."""
        assert self._experiment_id
        return runs.experiment_ids(self._store)

    @contextlib.contextmanager
    def run(self, spec: RunSpec) -> Iterator[Run]:
        """Open or resume a run. Its status is written even if Ctrl-C or SIGTERM ends it."""
        from mlflow.entities import Param  # imported here, because to find a run takes no MLflow

        from mnist_pipeline.tracking.mlflow_run import MlflowRun
        from mnist_pipeline.tracking.outbox import BufferedRun

        all_tags = {
            Tag.KIND: spec.kind,
            Tag.DESCRIPTION: spec.description,
            Tag.USER: user(),
            Tag.PROGRAM: "mnist-pipeline",
            Tag.PROGRAM_KIND: "LOCAL",
            Tag.RESUME_ID: spec.resume_id,
            Tag.PROCESS: processes.current().to_json(),
            **spec.tags,
        }
        with self._store.reporting_errors():
            begun = None if spec.is_new else self._find_begun(spec.resume_id)
            if begun:
                self._reopen(begun)
                run_id, name, artifact_uri, known = begun.run_id, begun.name, begun.artifact_uri, begun.params
            else:
                name = self._find_free_name(spec.name) if spec.kind in _NAMED else spec.name
                run_id, artifact_uri = self._create_run(name, all_tags)
                known = {}
            is_server = store.is_server(self._store.uri)
            plain = MlflowRun(
                self._store,
                experiment_id=self._experiment_id,
                run_id=run_id,
                name=name,
                artifact_uri=artifact_uri,
                is_resumed=begun is not None,
                is_hasty=is_server,
            )
            run = BufferedRun(self._store, plain, self._patience) if is_server else plain
            with self._closed(run):
                if begun:
                    run.set_tags(all_tags)
                # MLflow does not let params change. Those that may differ, such as the address of a mirror, keep their
                # first value.
                missing = [Param(key, str(value)) for key, value in spec.params.items() if key not in known]
                self._client.log_batch(run_id, params=missing)
                self._show_columns(spec.params)
                yield run

    def _create_run(self, name: str, tags: Mapping[str, str]) -> tuple[str, str]:
        """Create one run, even if the answer to the first request is lost; return its id and its artifacts' address."""

        def create() -> tuple[str, str]:
            created = self._client.hasty.create_run(self._experiment_id, run_name=name, tags=tags)
            return created.info.run_id, created.info.artifact_uri

        def look() -> tuple[str, str]:
            created = next(self._search({Tag.RESUME_ID: tags[Tag.RESUME_ID]}), None)
            return (created.run_id, created.artifact_uri) if created else create()

        return self._patience.call(create, again=look)

    def _find_free_name(self, name: str) -> str:
        """Return `name`, with a number if another run has it, so that a name means one run."""
        found = runs.search_named(self._store, self._experiment_ids, name)
        taken = {run.name for run in found}
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        return next(one for one in itertools.chain([name], numbered) if one not in taken)

    def _show_columns(self, params: Collection[str]) -> None:
        """Let the UI show the keys of a model, which the first run of it makes known."""
        with self._showing:
            if not self._shown.issuperset(params):
                self._store.show_columns(self._experiment_id, params)
                self._shown.update(params)

    def find_finished(self, tags: Mapping[str, str]) -> RunRecord | None:
        """Return the newest finished run with `tags`; a damaged run is reported and does not count."""
        with self._store.reporting_errors():
            for run in self._search(tags, is_finished=True):
                damage = self._patience.call(partial(integrity.find_damage, self._store, run.run_id))
                if not damage:
                    return runs.read(self._store, run)
                _log.warning("run %s is finished, but damaged (%s): it does not count", run.run_id, "; ".join(damage))
        return None

    def find_interrupted(self, tags: Mapping[str, str], params: Mapping[str, str]) -> list[RunRecord]:
        """Return the runs of this experiment that have not ended as FINISHED or FAILED."""
        with self._store.reporting_errors():
            found = [runs.read(self._store, run) for run in self._search(tags)]
        return [
            run for run in found if run.status in ("RUNNING", "KILLED") and params.items() <= dict(run.params).items()
        ]

    def find_training(self, fingerprint: str) -> RecordedTraining | None:
        """Return the longest training with the tag; epochs after a gap do not count."""
        with self._store.reporting_errors():
            found = [self._read_training(run) for run in self._search({Tag.TRAINING_FINGERPRINT: fingerprint})]
        return max(found, key=lambda training: len(training.points), default=None)

    def read_training(self, run_id: str) -> RecordedTraining:
        """Return the epochs that a run has tracked."""
        with self._store.reporting_errors():
            return self._read_training(runs.require_stored(self._store, run_id))

    def _read_training(self, run: StoredRun) -> RecordedTraining:
        epochs: dict[int, dict[str, StoredPoint]] = {}
        names = [key for key in run.metrics if key in EPOCH_METRICS]
        for key in names:
            for point in self._store.reader.read_points(run.run_id, key):
                epochs.setdefault(point.step, {})[key] = point
        points: list[Point] = []
        while len(epochs.get(len(points) + 1, {})) == len(names) > 0:
            metrics = epochs[len(points) + 1]
            ended_ms = next(iter(metrics.values())).timestamp_ms
            points.append(Point(len(points) + 1, {key: point.value for key, point in metrics.items()}, ended_ms))
        return RecordedTraining(run_id=run.run_id, points=tuple(points))

    def _search(self, tags: Mapping[str, str], *, is_finished: bool = False) -> Iterator[StoredRun]:
        if self._found_experiment is None:
            self._found_experiment = self._store.find_experiment(self._experiment)
        known = [] if self._found_experiment is None else [self._found_experiment]
        return runs.search_stored(self._store, known, tags, conditions=[FINISHED] if is_finished else [])

    def _find_begun(self, resume_id: str) -> StoredRun | None:
        """Return the run that an earlier command began; close one of another experiment, as MLflow cannot move it."""
        from mnist_pipeline.tracking.mlflow_run import MlflowRun

        found = list(runs.search_stored(self._store, self._experiment_ids, {Tag.RESUME_ID: resume_id}))
        begun = [run for run in found if run.experiment_id == self._experiment_id]
        if begun:
            return begun[0]
        for run in found:
            if run.status == "RUNNING":
                self._close(
                    MlflowRun(self._store, experiment_id=run.experiment_id, run_id=run.run_id, is_resumed=True),
                    "KILLED",
                    why="interrupted; continued in another experiment",
                )
            _log.info(
                "resume    the run %s (%s) of another experiment is continued in a new run here", run.name, run.run_id
            )
        return None

    def _reopen(self, run: StoredRun) -> None:
        self._client.set_tag(run.run_id, Tag.PROCESS, processes.current().to_json())  # first: see `runs.abandon`
        self._client.update_run(run.run_id, status="RUNNING")
        if Tag.REASON in run.tags:
            self._client.delete_tag(run.run_id, Tag.REASON)

    @contextlib.contextmanager
    def _closed(self, run: "MlflowRun | BufferedRun") -> Iterator[None]:
        from mnist_pipeline.tracking.outbox import BufferedRun

        try:
            yield
        except TakenOverError:
            if isinstance(run, BufferedRun):
                run.forget()
            raise
        except (KeyboardInterrupt, Terminated) as interruption:
            self._close(run, "KILLED", why="SIGTERM" if isinstance(interruption, Terminated) else "Ctrl-C")
            raise
        except PausedError as pause:
            self._close(run, "KILLED", why=str(pause))
            raise
        except BaseException as error:
            why = f"{type(error).__name__}: {explain(error) if is_of_store(error) else error}"
            # Do not wait a second time for the same.
            self._close(run, "FAILED", why=why, is_patient=not (is_locked(error) or is_away(error)))
            raise
        else:
            run.end("FINISHED")
            if isinstance(run, BufferedRun):
                run.deliver()
        finally:
            if isinstance(run, BufferedRun):
                run.close()

    def _close(self, run: "MlflowRun | BufferedRun", status: str, *, why: str, is_patient: bool = True) -> None:
        # The store itself may have failed: the first error is the one to report.
        try:
            run.end(status, why=why, is_patient=is_patient)
        except Exception as error:
            if not is_of_store(error):
                raise
            _log.warning("run %s could not be marked %s: %s", run.run_id, status, explain(error))
