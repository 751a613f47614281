"""The list of commands. A command is imported when it is called, and imports TensorFlow and MLflow only if needed."""

import atexit
import contextlib
import gc
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence

from mnist_pipeline.cli.errors import ReportedError, print_error
from mnist_pipeline.system import signals
from mnist_pipeline.system.environment import prepare_libraries
from mnist_pipeline.system.errors import ConfigError, Terminated, UserError
from mnist_pipeline.system.nearest import nearest

COMMANDS = {
    "train": "train, evaluate and track a model",
    "sweep": "search for a better model, and confirm that it is better",
    "studies": "list the studies that sweeps made, and what came of them",
    "compare": "compare runs: which is best, by how much, and how certain that is",
    "diff": "compare two runs, down to the images on which they disagree",
    "report": "write a page about a run or a study, and make it the model card",
    "promote": "make a run's model the champion, if it passes the gates",
    "rollback": "make an earlier champion the champion again",
    "history": "show every decision about the champion",
    "predict": "classify the images in files with the champion",
    "serve": "serve the champion over HTTP",
    "dashboard": "view a sweep's study in Optuna's dashboard",
    "ui": "view the runs in the MLflow UI",
    "reproduce": "train a run again, and compare every bit of its result",
    "doctor": "check the store and what lies beside it; repair it, free space",
}
"""What each command does. Its function has its name, in a module of its name."""


def run() -> None:
    """Run the command that the arguments name, and end the process."""
    code = main()
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does at its end
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would take down what TensorFlow and MLflow have made, object by object: that takes half a second.
    os._exit(code)


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    _open_closed_streams()
    signals.install()
    prepare_libraries()
    _never_fail_to_encode()
    # The heavy imports create hundreds of thousands of objects that live to the end: to search them for garbage takes
    # a fifth of the time. `heavy_imports.py` turns the collector on again.
    gc.disable()
    try:
        _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has closed the pipe. Python's own flush at the end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated as termination:
        print("terminated", file=sys.stderr)
        return termination.exit_code
    except ReportedError as error:
        return error.exit_code
    except Exception as error:  # a bug; Python's own hook would print secrets and raw control characters
        print_error(error)
        return error.exit_code if isinstance(error, UserError) else 1
    return 0


def _open_closed_streams() -> None:
    """Open what the caller has closed: else the next file, such as the database, would get what a library prints."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.dup2(opened, descriptor)  # which child processes inherit
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def _never_fail_to_encode() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of failing in the middle of a page."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: list[str]) -> None:
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(_help())
        case ["--version"]:
            import importlib.metadata

            print(importlib.metadata.version("mnist-pipeline"))
        case ["-sc" | "--shell-completion", *_]:
            from mnist_pipeline.cli import completion

            completion.complete(arguments, COMMANDS, _load)
        case [command, *rest] if command in COMMANDS:
            _load(command)(rest)
        case [command, *_]:
            near = nearest(command, COMMANDS)
            hint = f"did you mean {near}?" if near else f"expected {' or '.join(COMMANDS)}"
            raise ConfigError(f"{command}: no such command; {hint}")


def _help() -> str:
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mnist-pipeline COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "mnist-pipeline COMMAND --help shows its arguments. Shell completion, for bash (or zsh):",
            '  eval "$(mnist-pipeline -sc install=bash)"',
        ]
    )


def _load(command: str) -> Callable[[Sequence[str]], None]:
    function: Callable[[Sequence[str]], None] = getattr(
        importlib.import_module(f"mnist_pipeline.cli.{command}"), command
    )
    return function


if __name__ == "__main__":
    run()
