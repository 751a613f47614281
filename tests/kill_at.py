"""Run the command and kill -9 its whole process group at a named moment: `python kill_at.py MOMENT ARGUMENTS...`.

MOMENT is `import MODULE`, or `call MODULE NAME NTH before|after`: around the NTH call of a function or method.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn


def kill() -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    raise AssertionError("unreachable")


class KillAtImport(importlib.abc.MetaPathFinder):
    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == self._module:
            kill()
        return None


def kill_at_call(module: str, name: str, nth: int, when: str) -> None:
    owner: Any = importlib.import_module(module)
    *parents, attribute = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, attribute)
    count = 0

    @functools.wraps(original)
    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == nth and when == "before":
            kill()
        result = original(*arguments, **named)
        if count == nth and when == "after":
            kill()
        return result

    setattr(owner, attribute, deadly)


def main() -> int:
    kind, *rest = sys.argv[1].split()
    if kind == "import":
        sys.meta_path.insert(0, KillAtImport(rest[0]))
    else:
        module, name, nth, when = rest
        # All modules, so that what they imported is what is replaced.
        if sys.argv[2] != "doctor":
            importlib.import_module("mnist_pipeline.tracking.mlflow_tracker")
        stories = {"sweep": "sweep.sweep", "train": "pipeline.stages", "doctor": "doctor.examination"}
        stories |= {"promote": "registry.promote", "rollback": "registry.rollback"}
        importlib.import_module(f"mnist_pipeline.{stories[sys.argv[2]]}")

        kill_at_call(module, name, int(nth), when)
    from mnist_pipeline import cli

    sys.argv = ["mnist-pipeline", *sys.argv[2:]]
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
