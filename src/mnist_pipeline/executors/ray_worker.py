"""A worker of a Ray cluster, as the driver sees it. No call waits without a bound: a silent worker counts as lost."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.failure import MEMORY_STEP, Cause, Failure
from mnist_pipeline.executors.ray_actor import Message, Surroundings
from mnist_pipeline.executors.worker import Reported, WorkerDiedError

LOOK_SEC = 0.5
"""How often a wait looks whether it is to end."""
_PING_AFTER_SEC = 5.0
_KILL_SEC = 2.0
LOST = (RayError, OSError)
"""What a call raises whose worker, or this machine's part of the cluster, is lost."""


class RayWorker:
    """An actor that is ready to train; see `Worker`.

    Args:
        actor: Ray's handle of a `Trainer`.
        about: Where it is.
        put: Returns Ray's reference to a data set.
        silence_sec: After this time without a sign it counts as lost.
        is_gone: Returns whether the cluster is gone.
    """

    def __init__(
        self,
        actor: Any,
        about: Surroundings,
        *,
        put: Callable[[Found], Any],
        silence_sec: float,
        is_gone: Callable[[], bool],
    ) -> None:
        self._actor = actor
        self._about = about
        self._put = put
        self._found = ""
        self._first: Any = None  # Ray's reference to the first message of the training
        self._silence_sec = silence_sec
        self._is_gone = is_gone

    def prepare(self) -> None:
        """Let it import TensorFlow.

        Raises:
            WorkerDiedError: It died.
        """
        self._get(self._actor.prepare.remote())

    def begin(self, config: Config, found: Found, start: bytes | None) -> None:
        """Send the actor its task."""
        if found.identity != self._found:
            self._get(self._actor.load.remote(self._put(found)))
            self._found = found.identity
        self._first = self._actor.begin.remote(config, start)

    def follow(self) -> Generator[Reported]:
        """Yield the epochs that the actor reports."""
        message: Message = self._get(self._first)
        while message is not None:
            if isinstance(message, Failure):
                raise message.to_error()
            continues = False
            try:
                yield message
                continues = True
            finally:
                if not continues:
                    self._get(self._actor.step.remote(False))
            message = self._get(self._actor.step.remote(True))

    def stop(self) -> None:
        """End the actor's process at once."""
        end(self._actor)

    def _get(self, answer: Any) -> Any:
        """Return the answer to a call; ask the actor for a sign of life while it is not there."""
        last_sign = asked = time.monotonic()
        ping: Any = None
        try:
            while True:
                ready, _ = ray.wait([answer, *([ping] if ping else [])], timeout=LOOK_SEC)
                if answer in ready:
                    return ray.get(answer)
                if self._is_gone():
                    raise self._died("the cluster is gone", is_lost=True)
                now = time.monotonic()
                if ping in ready:
                    ray.get(ping)
                    last_sign, ping = now, None
                if ping is None and now - last_sign > _PING_AFTER_SEC:
                    ping, asked = self._actor.ping.remote(), now
                if ping is not None and now - asked > self._silence_sec:
                    raise self._died(f"no sign for {self._silence_sec:g} s", is_lost=True)
        except LOST as error:
            # Whatever it is, the worker cannot be relied on: a call may or may not have been carried out.
            is_process = isinstance(error, ActorDiedError) and self._is_node_alive()
            raise self._died(shorten(error), is_lost=not is_process) from error

    def _died(self, why: str, *, is_lost: bool) -> WorkerDiedError:
        reason = f"its worker on {self._about.host} was lost ({why})"
        return WorkerDiedError(Failure(Cause.surroundings, reason, MEMORY_STEP), is_lost=is_lost)

    def _is_node_alive(self) -> bool:
        return self._about.node in {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def end(actor: Any) -> None:
    """End an actor at once, or see that it is never started."""

    def kill() -> None:
        with contextlib.suppress(*LOST, ValueError):  # it is dead already
            ray.kill(actor, no_restart=True)

    if actor is not None:
        killing = threading.Thread(target=kill, daemon=True)  # without a head the call does not return
        killing.start()
        killing.join(_KILL_SEC)


def wait_for(answer: Any, goes_on: Callable[[], bool]) -> bool:
    """Return whether an answer is there; wait for it as long as `goes_on` says."""
    while True:
        ready, _ = ray.wait([answer], timeout=LOOK_SEC)
        if ready or not goes_on():
            return bool(ready)


def shorten(error: BaseException) -> str:
    """Return what Ray says of an error, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
