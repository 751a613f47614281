"""The arguments of a command that is a Hydra app, and what Hydra prints for it.

The configuration of a run is composed by `config/compose.py`, once; Hydra itself is run only to show things.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mnist_pipeline.cli.arguments import with_short_errors
from mnist_pipeline.config import hydra_internals, overrides
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address, hide


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments as Hydra reads them.

    Raises:
        ConfigError: A flag is unknown, not for these commands, or contradicts another.
    """
    parsed: argparse.Namespace = with_short_errors(hydra_internals.make_parser()).parse_args(arguments)
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


def show(parsed: argparse.Namespace, addresses: Mapping[str, Address], *, config_name: str) -> None:
    """Let Hydra print what the arguments ask for: help, the composed configuration, or completions.

    Args:
        parsed: The arguments.
        addresses: Those of the composed configuration, by key. Hydra gets them with their secrets masked.
        config_name: The primary configuration.

    Raises:
        ConfigError: Hydra refuses the arguments.
    """
    masked = [f"{key}={_quote(address)}" for key, address in addresses.items() if address.has_secret]
    given = overrides.loosen(list(map(overrides.mask, parsed.overrides)))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            _call_hydra([*_flags(parsed), *given, *masked], config_name)
    finally:
        print(hide(printed.getvalue()), end="")


def _call_hydra(arguments: Sequence[str], config_name: str) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise an error here instead of printing it in six lines
    sys.argv = ["mnist-pipeline", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name=config_name)(
            lambda composed: None
        )()
    except BrokenPipeError:
        raise
    except (HydraException, OmegaConfBaseException, OSError, AttributeError, ValueError) as error:
        # The job's own errors are kept: these are Hydra's, about its settings or folders.
        raise ConfigError(" ".join(str(error).split())) from error


def _flags(parsed: argparse.Namespace) -> list[str]:
    """Return the flags to pass to Hydra; --multirun is not one of them, because Hydra does not start the runs."""
    switches = ("help", "hydra_help", "shell_completion", "resolve")
    values = ("cfg", "package", "info", "config_dir")
    return [
        *(_flag(name) for name in switches if getattr(parsed, name)),
        *(f"{_flag(name)}={getattr(parsed, name)}" for name in values if getattr(parsed, name) is not None),
    ]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _quote(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
