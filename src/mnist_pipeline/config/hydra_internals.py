"""Parts of Hydra that are not public, each behind one function. `tests/test_library_internals.py` checks them."""

import argparse
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags of a Hydra app."""
    return get_args_parser()


def split_sweep(parsed: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each run of a multirun, in the order in which Hydra would start them."""
    return [list(run) for run in BasicSweeper.split_arguments(list(parsed), max_batch_size=None)[0]]


def list_values(override: Override) -> list[Any]:
    """Return the values of an override: several for a choice `A,B`, else one."""
    value = override._value
    return list(value.list) if isinstance(value, ChoiceSweep) else [value]


def find_glob(override: Override) -> Glob | None:
    """Return the `glob(...)` that is the value of an override; None for any other value."""
    value = override._value
    return value if isinstance(value, Glob) else None


def write_value(value: Any) -> str:
    """Return a parsed value in Hydra's grammar."""
    return Override._get_value_element_as_str(value)
