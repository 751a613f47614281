"""Arguments that several commands share."""

import argparse
import errno
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system import hints
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking import store

HERE = "127.0.0.1"
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


def add_address(parser: argparse.ArgumentParser, *, port_help: str, port: int | None = None) -> None:
    """Add the arguments --host and --port."""
    host_help = "an address of this machine to listen on, 0.0.0.0 for all; default: 127.0.0.1, for this machine alone"
    parser.add_argument("--host", default=HERE, help=host_help)
    parser.add_argument("--port", type=int, default=port, help=port_help)


def listen(port: int, *, host: str = HERE) -> socket.socket:
    """Return a socket that listens on `port` of an address of this machine; 0 stands for any that is free.

    Raises:
        ConfigError: It cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        return socket.create_server((address[0], port), family=family)
    except (OSError, OverflowError) as error:
        if isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL):
            raise ConfigError(f"--host {host}: not an address of this machine; give 127.0.0.1, or 0.0.0.0") from error
        other = port + 1 if 0 < port < 65535 else 5001
        raise ConfigError(f"--port {port}: cannot be used ({error}); choose another, e.g. --port {other}") from error


def listen_by_default(port: int, *, host: str) -> socket.socket:
    """Return a socket that listens on `port`, or on another port if that one is taken."""
    try:
        return listen(port, host=host)
    except ConfigError:
        return listen(0, host=host)


def describe_address(listener: socket.socket, host: str, *, what: str) -> str:
    """Return the address of a web application; say on standard error what others can do if they can reach it."""
    bound, port = listener.getsockname()[:2]
    if not ipaddress.ip_address(bound).is_loopback:
        print(f"warning: whoever reaches port {port} of this machine can {what}: there is no password", file=sys.stderr)
    named = socket.gethostname() if ipaddress.ip_address(bound).is_unspecified else host
    return f"http://{f'[{named}]' if ':' in named else named}:{port}"


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
