"""The commands. A thin door: TensorFlow and MLflow are imported only by a command that needs them."""

import argparse
import contextlib
import gc
import os
import re
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mnist_pipeline.errors import ConfigError, Terminated, UserError

if TYPE_CHECKING:
    from mnist_pipeline.config import Config
    from mnist_pipeline.sweep.space import SweepConfig

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # no SIGHUP on Windows


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    for number in _STOP_SIGNALS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish is kept
            signal.signal(number, _stop)
    # The heavy imports make hundreds of thousands of objects that live to the end: to look for garbage among them takes
    # a fifth of the time. `_heavy_imports` turns the collector on again.
    gc.disable()
    try:
        _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        _tell(error)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read the output has seen enough, as head does. Python's own flush at the end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated as termination:
        print("terminated", file=sys.stderr)
        return termination.exit_code
    return 0


def _tell(error: Exception) -> None:
    """Print what a user can mend as one line, and a bug as the traceback that it is."""
    if not isinstance(error, UserError) or os.environ.get("MNIST_PIPELINE_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, UserError):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # One is enough: a second must not come between a run and the status that it ends with.
    for other in _STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


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
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
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
    parsed = _parse_hydra(arguments)
    if not _only_shows(parsed):
        from mnist_pipeline import composing, store

        configs = composing.check(parsed.overrides, multirun=parsed.multirun, config_dir=parsed.config_dir)
        if len({checked.train.num_threads for checked in configs}) > 1:
            raise ConfigError("train.num_threads: one number for all runs of a --multirun, since they share a process")
        if not (parsed.cfg or parsed.info):
            for uri in {store.resolve_uri(checked.tracking) for checked in configs}:
                store.begin(uri)
    _run_hydra(lambda composed: _train_once(composed, config_dir=parsed.config_dir), arguments)


def _train_once(composed: object, *, config_dir: str | None) -> None:
    from omegaconf import DictConfig

    from mnist_pipeline import composing

    with _heavy_imports():
        from mnist_pipeline import mlflow_tracking, pipeline, request
    from mnist_pipeline import console  # only now: it looks whether stderr is a terminal

    console.show_log()
    assert isinstance(composed, DictConfig)
    given, searched = _given_overrides(config_dir)

    def compose(overrides: list[str]) -> "Config":
        return composing.check([*searched, *overrides], config_dir=config_dir)[0]

    asked = request.prepare(composing.from_hydra(composed), given, compose=compose)
    tracker = mlflow_tracking.MlflowTracker(asked.config.tracking)
    with console.EpochProgress(asked.config.train.num_epochs) as progress:
        result = pipeline.run(asked, tracker, on_epoch=progress)
    console.print_result(result)


def sweep(arguments: Sequence[str]) -> None:
    """Run the `sweep` command: a Hydra app too."""
    from mnist_pipeline import composing

    parsed = _parse_hydra(arguments)
    if parsed.multirun:
        raise ConfigError("--multirun: not for this command; the values to try stand in sweep.space")
    if _only_shows(parsed):
        _run_hydra(lambda composed: None, arguments, config_name=composing.SWEEP_CONFIG_NAME)
        return
    from mnist_pipeline import store
    from mnist_pipeline.sweep import space

    base, values, fixed = composing.check_sweep(parsed.overrides, config_dir=parsed.config_dir)
    config = space.read(values, base, fixed=fixed)
    if not (parsed.cfg or parsed.info):
        store.begin(store.resolve_uri(base.tracking))
    _run_hydra(
        lambda composed: _sweep_once(base, config, config_dir=parsed.config_dir),
        arguments,
        config_name=composing.SWEEP_CONFIG_NAME,
    )


def _sweep_once(base: "Config", config: "SweepConfig", *, config_dir: str | None) -> None:
    from mnist_pipeline import composing
    from mnist_pipeline.sweep import server

    server.context()  # it imports TensorFlow while this process imports everything else
    with _heavy_imports():
        from mnist_pipeline import mlflow_tracking, request
        from mnist_pipeline.sweep import run, trainings
    from mnist_pipeline import console  # only now: it looks whether stderr is a terminal
    from mnist_pipeline.sweep import console as view

    console.show_log()
    given, searched = _given_overrides(config_dir)

    def compose(overrides: list[str]) -> "Config":
        return composing.check_sweep([*searched, *overrides], config_dir=config_dir)[0]

    asked = request.prepare(base, given, compose=compose)
    tracker = mlflow_tracking.MlflowTracker(asked.config.tracking)
    stop = trainings.Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set:  # the workers die with this process; what is kept is what a kill would leave
            os._exit(130 if number == signal.SIGINT else 143)
        stop.set(KeyboardInterrupt() if number == signal.SIGINT else Terminated())
        print("stopping after the running epochs; once more stops at once", file=sys.stderr)

    for number in _STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
    with view.SweepProgress(config) as progress:
        try:
            result = run.sweep(asked, config, tracker, progress=progress, stop=stop)
        except (KeyboardInterrupt, Terminated):
            progress.print_stopped()
            raise
    view.print_result(result)
    if result.num_failed:
        raise UserError(f"{result.num_failed} trials failed and were replaced: the table in MLflow has the reasons")


def _parse_hydra(arguments: Sequence[str]) -> argparse.Namespace:
    from hydra._internal.utils import get_args_parser

    parsed: argparse.Namespace = _with_short_errors(get_args_parser()).parse_args(arguments)
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if getattr(parsed, flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: not for this command; use a preset, or --config-dir")
    chosen = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(parsed, flag)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} together: choose one of them")
    return parsed


def _only_shows(parsed: argparse.Namespace) -> bool:
    return bool(parsed.help or parsed.hydra_help or parsed.shell_completion)


def _given_overrides(config_dir: str | None) -> tuple[list[str], list[str]]:
    """Return the overrides of the command line, and those that make Hydra search further folders."""
    from hydra.core.hydra_config import HydraConfig

    given = HydraConfig.get().overrides
    searched = [override for override in given.hydra if override.startswith("hydra.searchpath") and not config_dir]
    return list(given.task), searched


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, on 127.0.0.1."""
    parser = _parser("ui", "Starts the MLflow UI on 127.0.0.1 over the store that train writes to.")
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_args(arguments)

    from mnist_pipeline import composing, store
    from mnist_pipeline.config import without_password

    uri = store.resolve_uri(composing.compose(parsed.overrides).tracking)
    if store.is_server(uri):
        raise ConfigError(f"{without_password(uri)} is a server with a UI of its own: open that address in a browser")
    _require_free(parsed.port)
    store.check(uri)
    store.create(uri)
    artifacts = store.artifacts_dir(uri)
    print(f"MLflow UI: http://127.0.0.1:{parsed.port}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", flush=True)
    mlflow = shutil.which("mlflow", path=str(Path(sys.executable).parent)) or "mlflow"
    served = ["--backend-store-uri", uri, *(["--default-artifact-root", artifacts.as_uri()] if artifacts else [])]
    os.execv(mlflow, [mlflow, "ui", *served, "--host", "127.0.0.1", "--port", str(parsed.port), "--workers", "1"])


def dashboard(arguments: Sequence[str]) -> None:
    """Run the `dashboard` command: Optuna's own dashboard over the studies of a storage, on 127.0.0.1."""
    parser = _parser("dashboard", "Starts Optuna's dashboard on 127.0.0.1, over the study that was last worked on.")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080")
    help_text = "sweep.study= and sweep.storage= as for sweep name another one"
    parser.add_argument("overrides", nargs="*", metavar="sweep.KEY=VALUE", help=help_text)
    parsed = parser.parse_args(arguments)

    from mnist_pipeline import composing, paths

    _, values, _ = composing.check_sweep(parsed.overrides)
    storage, study = values.get("storage"), values.get("study")
    folder = paths.mlruns_dir() / "optuna"
    if storage is None:
        journals = sorted(folder.glob(f"{study or '*'}.journal"), key=lambda path: path.stat().st_mtime)
        if not journals:
            raise ConfigError(f"no study is in {folder}: make one with mnist-pipeline sweep, or give sweep.storage=")
        storage = str(journals[-1])
    elif "://" not in storage and not Path(storage).is_file():
        raise ConfigError(f"sweep.storage={storage}: no such file")
    _require_free(parsed.port)
    print(f"Optuna dashboard: http://127.0.0.1:{parsed.port}/ (Ctrl-C ends it)", flush=True)
    program = str(Path(sys.executable).parent / "optuna-dashboard")
    os.execv(program, [program, storage, "--host", "127.0.0.1", "--port", str(parsed.port)])


def _require_free(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port {port}: cannot be used ({error}); choose another, e.g. --port 5001") from error


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (train, "train, evaluate and track a model"),
    "sweep": (sweep, "search for a better one, and confirm that it is"),
    "dashboard": (dashboard, "look at a sweep's study in Optuna's dashboard"),
    "ui": (ui, "look at the runs in the MLflow UI"),
}


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"mnist-pipeline {command}", description=description)
    return _with_short_errors(parser)


def _with_short_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}; mnist-pipeline --help lists the commands")

    parser.error = error  # type: ignore[method-assign]
    return parser


def _run_hydra(job: Callable[[object], None], arguments: Sequence[str], *, config_name: str = "config") -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mnist_pipeline import composing, paths

    failures: list[Exception] = []

    def keep_errors(composed: object) -> None:
        # Hydra would print lines of its own about an error that it sees. The other runs of a --multirun go on.
        try:
            job(composed)
        except Exception as error:
            failures.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # an error comes here instead of being printed in six lines
    composing.register_resolvers()
    sys.argv = ["mnist-pipeline", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name=config_name)(keep_errors)()
    except BrokenPipeError:
        raise
    except (HydraException, OmegaConfBaseException, OSError, AttributeError) as error:
        # The job's own errors are kept: these are Hydra's, about its settings or folders.
        raise ConfigError(" ".join(str(error).split())) from error
    for failure in failures[:-1]:
        _tell(failure)
    if failures:
        raise failures[-1]


def _complete(arguments: list[str]) -> None:
    """Answer the shell's question. Hydra knows the overrides, but nothing of the command before them."""
    if not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", arguments[-1]):
        raise ConfigError("-sc: expected install=bash, zsh or fish (or uninstall=, query=)")
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if arguments[-1].startswith("query=") and (len(words) < 2 or (len(words) == 2 and not line.endswith(" "))):
        print(" ".join(COMMANDS))
        return
    if len(words) >= 2:
        if words[1] not in ("train", "sweep"):
            return
        os.environ["COMP_LINE"] = line.replace(f"{words[1]} ", "", 1)
    is_sweep = words[1:2] == ["sweep"]
    _run_hydra(lambda composed: None, arguments, config_name="sweep" if is_sweep else "config")


@contextlib.contextmanager
def _heavy_imports() -> Iterator[None]:
    """Import TensorFlow in silence, and turn the garbage collector on again after it."""
    from mnist_pipeline import quiet

    with quiet.library_noise():
        yield
    if not gc.isenabled():  # once a process: what later runs leave behind is to be collected
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
