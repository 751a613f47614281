"""Arguments that several commands share."""

import argparse
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system import hints
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking import store

STORE_HELP = "data=, tracking.uri= and tracking.experiment= as for train"
WAIT_HELP = f"{STORE_HELP}, and wait=true"
RUN_HELP = "id or name, champion, challenger, model@alias, or the number of a registered version"


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that is not a Hydra app."""
    parser = argparse.ArgumentParser(prog=f"mnist-pipeline {command}", description=description)
    return with_short_errors(parser)


def with_short_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make `parser` raise ConfigError instead of printing its usage."""

    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}; mnist-pipeline --help lists the commands")

    parser.error = error  # type: ignore[method-assign]
    return parser


def listen(port: int) -> socket.socket:
    """Return a socket that listens on `port` of 127.0.0.1; 0 stands for any that is free.

    Raises:
        ConfigError: It cannot be listened on.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        other = port + 1 if 0 < port < 65535 else 5001
        raise ConfigError(f"--port {port}: cannot be used ({error}); choose another, e.g. --port {other}") from error


def listen_by_default(port: int) -> socket.socket:
    """Return a socket that listens on `port` of 127.0.0.1, or on another port if that one is taken."""
    try:
        return listen(port)
    except ConfigError:
        return listen(0)


def require_store(config: TrackingConfig, *, to_write: bool) -> None:
    """Refuse a store that does not exist, for a command that needs runs.

    Args:
        config: Names the store.
        to_write: Whether one that can only be read is refused too.

    Raises:
        UserError: It does not exist, or cannot be used.
    """
    uri = store.resolve_uri(config)
    if store.is_missing(uri):
        raise UserError(f"there are no runs yet: train one first ({hints.command('train')})")
    store.check(uri, to_write=to_write)


def require_output(output: Path | None, *, formats: Sequence[str]) -> None:
    """Refuse an output file that has the wrong format or cannot be written, before any work is done.

    Raises:
        ConfigError: It cannot be written, or not in one of the formats.
    """
    if output is None:
        return
    if output.suffix.lower() not in formats:
        raise ConfigError(f"--output {output}: expected a name that ends in {' or '.join(formats)}")
    place = os.path.realpath(output)  # pathlib's raises for a link that leads to itself
    if os.path.lexists(place) and not os.path.isfile(place):  # noqa: PTH113
        raise ConfigError(f"--output {output}: not a regular file")
    if not os.path.isdir(os.path.dirname(place)):  # noqa: PTH112, PTH120
        raise ConfigError(f"--output {output}: there is no folder {os.path.dirname(output)}")  # noqa: PTH120
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(place)):  # noqa: PTH120
            pass
    except OSError as error:
        raise ConfigError(f"--output {output}: cannot be written there ({error.strerror or error})") from error


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into the runs that they name and overrides.

    Raises:
        ConfigError: A name is empty.
    """
    named = [word for word in words if "=" not in word and not word.startswith("~")]
    if "" in named:
        raise ConfigError("the name of a run is empty: give its id or name")
    return named, [word for word in words if word not in named]
