"""A run on a tracking server that goes on while the server is away.

What cannot be written is kept on disk, in `mlruns/pending/<run id>/`, and sent in the same order when the server
answers again: by the same process, by the next command on the same server, or by `doctor --fix`. Each write can be
repeated, so nothing is lost or doubled if the server or this process dies at any moment. An outbox holds one run, and
so is bounded.
"""

import contextlib
import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException

from mnist_pipeline.data.dataset import Split
from mnist_pipeline.system import files, locks, paths, processes
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.system.patience import Patience
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.absence import is_away
from mnist_pipeline.tracking.database_errors import explain
from mnist_pipeline.tracking.mlflow_run import MODEL_NAME, MlflowRun, describe_split
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Tag
from mnist_pipeline.tracking.tracker import Predict

if TYPE_CHECKING:
    import keras

PROBE_PAUSE_SEC = 5.0
"""Between two looks at a server that is away, so that training waits for none of them."""

_log = logging.getLogger(__name__)


class BufferedRun:
    """A run as `MlflowRun` tracks it, with an outbox for the time in which the server is away."""

    def __init__(self, opened: MlflowStore, run: MlflowRun, patience: Patience) -> None:
        self.run_id = run.run_id
        self.name = run.name
        self.address = run.address
        self.trials_page = run.trials_page
        self.is_resumed = run.is_resumed
        self._uri = opened.uri
        self._run = run
        self._patience = patience
        self._outbox = Outbox(run.run_id)
        self._next_probe = 0.0
        self._writing = threading.Lock()

    def log_metrics(self, metrics: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
        """Log the metrics of one step."""
        self._write("log_metrics", {"metrics": dict(metrics), "step": step, "timestamp_ms": timestamp_ms})

    def list_steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` has been logged."""
        return self._patience.call(partial(self._run.list_steps, metric))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add or change tags."""
        self._write("set_tags", {"tags": dict(tags)})

    def show_trials(self, *, params: Sequence[str], metric: str) -> None:
        """Let the page at `trials_page` compare the run's trials."""
        self._write("show_trials", {"params": list(params), "metric": metric})

    def log_split(self, split: Split, *, name: str, context: str, source: str) -> None:
        """Log that the run used `split`."""
        self._write("log_input", describe_split(split, name=name, context=context, source=source))

    def log_artifacts(self, folder: Path) -> None:
        """Log every file in `folder` under the folder's own name."""
        self._write("log_artifacts", {}, folder)

    def prepare_model(self) -> None:
        """Do what `log_model` takes most time for, and what needs no trained model yet."""
        self._run.prepare_model()

    def log_model(
        self,
        model: "keras.Model",
        *,
        example: npt.NDArray[np.uint8],
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int,
    ) -> Predict:
        """Log the run's model; return it as loaded from the server, or from its files while the server is away."""
        with files.scratch() as scratch:
            folder = scratch / MODEL_NAME
            self._run.save_model(model, example, folder=folder)
            points = {"metrics": dict(metrics), "step": step, "timestamp_ms": timestamp_ms}
            self._write("upload_model", points, folder)
            if self._outbox.is_empty:
                with self._noting_absence():
                    return self._run.load_model()
            return self._run.load_model(folder)

    def log_files(self) -> None:
        """Log the list of all files of the run and of its model."""
        self._write("log_files", {"known": self._run.known_seals()})

    def end(self, status: str, *, why: str | None = None, is_patient: bool = True) -> None:
        """End the run."""
        self._write("end", {"status": status, "why": why, "is_patient": is_patient})

    def deliver(self) -> None:
        """Wait until the server has everything.

        Raises:
            UserError: It stays away for too long. What it lacks is kept.
        """
        try:
            self._patience.call(self._require_sent)
        except ConnectionError as error:
            raise UserError(
                f"the tracking server {self._uri} stays away: the result is kept in {self._outbox.folder}; when "
                f"the server is back, {command('doctor', '--fix')} uploads it, and so does the same command"
            ) from error

    def _require_sent(self) -> None:
        if not self._send():
            raise ConnectionError("the tracking server is away")

    def forget(self) -> None:
        """Drop what the server has not got: another command has gone on with the run."""
        self._outbox.clear()

    def close(self) -> None:
        """Leave what the server lacks to other processes."""
        self._outbox.close()

    def _write(self, name: str, arguments: Mapping[str, Any], folder: Path | None = None) -> None:
        with self._writing:  # the writes of a run are in one order, in its outbox too
            if self._outbox.is_empty or self._send():
                with self._noting_absence():
                    getattr(self._run, name)(*([folder] if folder else []), **arguments)
                    return
            self._outbox.add(self._run, name, arguments, folder)

    @contextlib.contextmanager
    def _noting_absence(self) -> Iterator[None]:
        """Swallow the error of a server that is away."""
        try:
            yield
        except Exception as error:
            if not is_away(error):
                raise
            _log.warning(
                "the tracking server %s is away: the run goes on, and is kept in %s", self._uri, self._outbox.folder
            )
            self._next_probe = time.monotonic() + PROBE_PAUSE_SEC

    def _send(self) -> bool:
        """Return whether the outbox is empty, after sending what can be sent now."""
        if self._outbox.is_empty:
            return True
        if time.monotonic() < self._next_probe:
            return False
        self._next_probe = time.monotonic() + PROBE_PAUSE_SEC
        if not store.is_up(self._uri) or not self._outbox.send(self._run):
            return False
        _log.info("sent      the tracking server is back, and has everything")
        return True


@dataclass(frozen=True)
class Pending:
    """An outbox that a process has left.

    Attributes:
        uri: Of the server, with secrets masked.
        process: The process whose writes they are, as the run's tag has it.
    """

    run_id: str
    uri: str
    experiment_id: str
    process: str = ""


class Outbox:
    """The writes of one run that its server has not got yet, as folders in order."""

    def __init__(self, run_id: str) -> None:
        self.folder = paths.mlruns_dir() / "pending" / run_id
        self._lock: Any = None
        self.is_empty = True

    def add(self, run: MlflowRun, name: str, arguments: Mapping[str, Any], folder: Path | None) -> None:
        """Keep a write.

        Raises:
            UserError: It cannot be written to the disk.
        """
        with files.reporting_errors(self.folder):
            if self._lock is None:
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self._lock = locks.make(self.folder.with_suffix(".lock"))
                self._lock.acquire()
            self.folder.mkdir(exist_ok=True)
            if not (self.folder / "about.json").exists():
                with files.whole(self.folder / "about.json") as about:
                    process = processes.current().to_json()
                    about.write_text(json.dumps(vars(Pending(run.run_id, str(run.uri), run.experiment_id, process))))
            number = max((int(place.name.partition("-")[0]) for place in self._list()), default=0)
            unfinished = self.folder / f".{uuid.uuid4().hex}.unfinished"
            unfinished.mkdir()
            (unfinished / "arguments.json").write_text(json.dumps(arguments))
            if folder is not None:
                shutil.copytree(folder, unfinished / "files" / folder.name)
            unfinished.rename(self.folder / f"{number + 1:06}-{name}")
        self.is_empty = False

    def send(self, run: MlflowRun) -> bool:
        """Repeat the writes; return whether the server has got all of them. Those that it has got are removed."""
        for place in self._list():
            name = place.name.partition("-")[2]
            arguments = json.loads((place / "arguments.json").read_text())
            try:
                getattr(run, name)(*(place / "files").glob("*"), **arguments)
            except Exception as error:
                if is_away(error):
                    return False
                raise
            shutil.rmtree(place)
        self.clear()
        return True

    def clear(self) -> None:
        """Remove what it holds."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.is_empty = True

    def close(self) -> None:
        """Let others have it, and remove its lock if it is empty."""
        if self._lock is not None:
            if self.is_empty:
                self.folder.with_suffix(".lock").unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _list(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*"))


def list_left() -> list[Pending]:
    """Return the outboxes that no process holds."""
    found = []
    for about in sorted((paths.mlruns_dir() / "pending").glob("*/about.json")):
        if not locks.is_held(about.parent.with_suffix(".lock")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(Pending(**json.loads(about.read_text())))
    return found


def send_left(opened: MlflowStore, left: Pending) -> None:
    """Send what a process has left for this server.

    Raises:
        UserError: The server is away, or does not take it; another command sends it just now.
    """
    outbox = Outbox(left.run_id)
    lock = locks.make(outbox.folder.with_suffix(".lock"))
    try:
        with lock.acquire(blocking=False):
            run = MlflowRun(
                opened, experiment_id=left.experiment_id, run_id=left.run_id, is_resumed=True, is_hasty=True
            )
            if left.process not in ("", opened.client.hasty.get_run(left.run_id).data.tags.get(Tag.PROCESS)):
                _log.warning("run %s was continued elsewhere: what was kept of it here is dropped", left.run_id)
                outbox.clear()
            elif not outbox.send(run):
                raise _away_again(left)
            outbox.folder.with_suffix(".lock").unlink(missing_ok=True)
    except locks.Timeout as error:
        raise UserError(f"another command sends what run {left.run_id} has left") from error
    except (MlflowException, OSError, ValueError, TypeError) as error:
        if is_away(error):
            raise _away_again(left) from error
        raise UserError(
            f"the tracking server {left.uri} does not take what run {left.run_id} has left ({explain(error)}): restore "
            f"the run there if it was deleted, or remove {outbox.folder}"
        ) from error


def _away_again(left: Pending) -> UserError:
    return UserError(f"the tracking server {left.uri} is away again: run the same command when it is back")
