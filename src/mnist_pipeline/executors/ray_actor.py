"""What runs on a node of a Ray cluster: an actor that trains in a process of its own, and knows only what it is given.

Ray imports this module there. The actor describes itself first, so that nothing is trained by other code, versions or
settings than the driver's.
"""

import atexit
import gc
import importlib
import platform
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from mnist_pipeline.config.sections import Config
from mnist_pipeline.data.dataset import Found
from mnist_pipeline.executors.failure import Failure
from mnist_pipeline.executors.worker import Reported
from mnist_pipeline.pipeline import fingerprint, sources
from mnist_pipeline.system.environment import prepare_libraries

Message = Reported | Failure | None
"""An epoch, why a training failed, or None at its end."""


@dataclass(frozen=True)
class Surroundings:
    """What decides the bits of a training, and where that is.

    Attributes:
        node: Its id in the cluster.
        code: SHA-256 of every module, by its name.
        processor: The kind of machine and its instruction sets.
        cpu: The processor's model, as the machine calls it.
    """

    node: str
    host: str
    code: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    processor: str
    cpu: str


def describe(modules: Sequence[str]) -> Surroundings:
    """Return the surroundings of this process, with the code of the stages, of these modules, and of workers."""
    return Surroundings(
        node=ray.get_runtime_context().get_node_id(),
        host=platform.node() or "unknown",
        code=fingerprint.digest_code([*modules, __name__]),
        versions=fingerprint.list_library_versions(),
        settings=fingerprint.list_settings(),
        processor=fingerprint.list_processor(),
        cpu=_name_cpu(),
    )


def pack(modules: Sequence[str]) -> dict[str, bytes]:
    """Return the user's own modules among these and those that they import, by their paths in a folder of modules."""
    packed = {}
    for name, file in sources.find_deciding_modules(modules).items():
        if name.partition(".")[0] != sources.PACKAGE:
            path = Path(*name.split("."))
            path = path / file.name if file.stem == "__init__" else path.with_suffix(file.suffix)
            packed[path.as_posix()] = file.read_bytes()
    return packed


def _unpack(packed: Mapping[str, bytes]) -> None:
    """Let this process import the modules, before those of the same names that are installed here."""
    folder = Path(tempfile.mkdtemp(prefix="mnist-pipeline-modules-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, content in packed.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


class Trainer:
    """The actor. `begin` and `step` wait for an epoch in one thread, while `ping` is answered in another."""

    def __init__(self) -> None:
        prepare_libraries()
        self._room: Any = None
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def describe(self, modules: Sequence[str], packed: Mapping[str, bytes]) -> Surroundings:
        """Take the user's own modules, and return the surroundings of this process."""
        if packed:
            _unpack(packed)
        return describe(modules)

    def prepare(self) -> None:
        """Import TensorFlow."""
        from mnist_pipeline.executors import training  # noqa: F401 (only to have it)

        gc.freeze()  # else the collection after each training looks at all of it, for half a second

    def load(self, found: Found) -> None:
        """Take the data, which Ray holds once for all workers of a node."""
        from mnist_pipeline.executors.training import TrainingRoom

        self._room = TrainingRoom(found)

    def begin(self, config: Config, start: bytes | None) -> Message:
        """Start a training, and return its first message."""
        threading.Thread(target=self._train, args=(config, start), daemon=True).start()
        return self._messages.get()

    def step(self, goes_on: bool) -> Message:
        """Say whether the training goes on, and return its next message."""
        self._answers.put(goes_on)
        return self._messages.get()

    def ping(self) -> None:
        """Show that this process lives."""

    def _train(self, config: Config, start: bytes | None) -> None:
        from mnist_pipeline.executors.training import StoppedError

        def report(reported: Reported) -> None:
            self._messages.put(reported)
            if not self._answers.get():
                raise StoppedError

        self._messages.put(self._room.train(config, start, report))


def _name_cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (Path reads the size of a file first)
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
