"""The commands. A thin door: TensorFlow and MLflow are imported only by a command that needs them."""

import argparse
import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mnist_pipeline.errors import ConfigError, Terminated, UserError


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    # The heavy imports make hundreds of thousands of objects that live to the end: to look for garbage among them takes
    # a fifth of the time. `_heavy_imports` turns the collector on again.
    gc.disable()
    try:
        _dispatch(sys.argv[1:])
    except UserError as error:
        if os.environ.get("MNIST_PIPELINE_TRACEBACK") == "1":
            traceback.print_exception(error)
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated as termination:
        print("terminated", file=sys.stderr)
        return termination.exit_code
    return 0


def _on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _dispatch(arguments: list[str]) -> None:
    match arguments:
        case [] | ["-h" | "--help", *_]:
            print(_help())
        case ["--version"]:
            import importlib.metadata

            print(importlib.metadata.version("mnist-pipeline"))
        case ["-sc" | "--shell-completion", *_]:
            _complete(arguments)
        case [command, *rest] if command in COMMANDS:
            COMMANDS[command][0](rest)
        case [command, *_]:
            raise ConfigError(f"{command}: no such command; expected {' or '.join(COMMANDS)}")


def _help() -> str:
    lines = [f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mnist-pipeline COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "mnist-pipeline COMMAND --help tells more. Shell completion, for bash:",
            '  eval "$(mnist-pipeline -sc install=bash)"',
        ]
    )


def train(arguments: Sequence[str]) -> None:
    """Run the `train` command: a Hydra app whose every configuration is checked before Hydra starts a job."""
    parsed = _hydra_parser().parse_args(arguments)
    chosen = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(parsed, flag)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} together: choose one of them")
    if not (parsed.help or parsed.hydra_help or parsed.shell_completion):
        from mnist_pipeline import config, store

        configs = config.check(parsed.overrides, multirun=parsed.multirun, config_dir=parsed.config_dir)
        if len({checked.train.num_threads for checked in configs}) > 1:
            raise ConfigError("train.num_threads: one number for all runs of a --multirun, since they share a process")
        if not (parsed.cfg or parsed.info):
            for uri in {store.resolve_uri(checked.tracking) for checked in configs}:
                store.begin(uri)
    failures: list[UserError] = []

    def job(composed: object) -> None:
        # Hydra would print lines of its own about an error that it sees.
        try:
            _train_once(composed)
        except UserError as error:
            failures.append(error)

    _run_hydra(job, arguments)
    for failure in failures[:-1]:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]


def _train_once(composed: object) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from mnist_pipeline import config

    with _heavy_imports():
        from mnist_pipeline import console, pipeline, tracking
    console.show_log()
    assert isinstance(composed, DictConfig)
    request = pipeline.prepare(config.from_hydra(composed), list(HydraConfig.get().overrides.task))
    tracker = tracking.MlflowTracker(request.config.tracking)
    with console.EpochProgress(request.config.train.num_epochs) as progress:
        result = pipeline.run(request, tracker, on_epoch=progress)
    console.print_result(result)


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, on 127.0.0.1."""
    parser = _parser("ui", "Starts the MLflow UI on 127.0.0.1 over the store that train writes to.")
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_args(arguments)

    from mnist_pipeline import config, store

    uri = store.resolve_uri(config.compose(parsed.overrides).tracking)
    if store.is_server(uri):
        raise ConfigError(f"{uri} is a server with a UI of its own: open that address in a browser")
    store.begin(uri)
    store.create(uri)
    print(f"MLflow UI: http://127.0.0.1:{parsed.port}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", flush=True)
    mlflow = shutil.which("mlflow", path=str(Path(sys.executable).parent)) or "mlflow"
    os.execv(
        mlflow,
        [mlflow, "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(parsed.port), "--workers", "1"],
    )


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (train, "train, evaluate and track a model"),
    "ui": (ui, "look at the runs in the MLflow UI"),
}


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"mnist-pipeline {command}", description=description)
    return _with_short_errors(parser)


def _hydra_parser() -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser

    return _with_short_errors(get_args_parser())


def _with_short_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}; mnist-pipeline --help lists the commands")

    parser.error = error  # type: ignore[method-assign]
    return parser


def _run_hydra(job: Callable[[object], None], arguments: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mnist_pipeline import config, paths

    os.environ["HYDRA_FULL_ERROR"] = "1"  # an error comes here instead of being printed in six lines
    config.register_resolvers()
    sys.argv = ["mnist-pipeline", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name=config.CONFIG_NAME)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _complete(arguments: list[str]) -> None:
    """Answer the shell's question. Hydra knows the overrides, but nothing of the command before them."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if arguments[-1].startswith("query=") and (len(words) < 2 or (len(words) == 2 and not line.endswith(" "))):
        print(" ".join(COMMANDS))
        return
    if len(words) >= 2:
        if words[1] != "train":
            return
        os.environ["COMP_LINE"] = line.replace(f"{words[1]} ", "", 1)
    _run_hydra(lambda composed: None, arguments)


@contextlib.contextmanager
def _heavy_imports() -> Iterator[None]:
    """Import TensorFlow without the lines that its C++ writes to stderr, past every setting; shown if it fails."""
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            captured.seek(0)
            sys.stderr.buffer.write(captured.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    sys.exit(main())
