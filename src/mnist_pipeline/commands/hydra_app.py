"""A command that is a Hydra app: its arguments, and how Hydra runs it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mnist_pipeline import composing, paths
from mnist_pipeline.commands.arguments import with_short_errors
from mnist_pipeline.errors import ConfigError, tell


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments as Hydra reads them.

    Raises:
        ConfigError: A flag is unknown, not for these commands, or contradicts another.
    """
    parsed: argparse.Namespace = with_short_errors(get_args_parser()).parse_args(arguments)
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if getattr(parsed, flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: not for this command; use a preset, or --config-dir")
    chosen = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(parsed, flag)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} together: choose one of them")
    return parsed


def only_shows(parsed: argparse.Namespace) -> bool:
    """Return whether the arguments ask for help or completion, and for no run."""
    return bool(parsed.help or parsed.hydra_help or parsed.shell_completion)


def given_overrides(config_dir: str | None) -> tuple[list[str], list[str]]:
    """Return the overrides of the command line, and those that make Hydra search further folders."""
    given = HydraConfig.get().overrides
    searched = [override for override in given.hydra if override.startswith("hydra.searchpath") and not config_dir]
    return list(given.task), searched


def run(job: Callable[[object], None], arguments: Sequence[str], *, config_name: str = composing.CONFIG_NAME) -> None:
    """Let Hydra compose the configuration and call `job` with it, once for each run of a --multirun.

    Raises:
        ConfigError: Hydra refuses the arguments.
        Exception: What `job` raised; where several did, the last, and the others are told.
    """
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
        tell(failure)
    if failures:
        raise failures[-1]
