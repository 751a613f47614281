"""The overrides of the command line, in Hydra's grammar: what they override, and how they are shown."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from mnist_pipeline.config import hydra_internals
from mnist_pipeline.config.sections import ADDRESS_KEYS
from mnist_pipeline.system.secrets import STARS, Address, hide

NESTED_GROUPS = {"train.optimizer": "train/optimizer", "train.schedule": "train/schedule"}
LOOSE = ("data.", "model.", *(f"{key}." for key in NESTED_GROUPS), "sweep.space.", "executor.resources")
"""Beginnings of the keys that may be set although no YAML file lists them."""
_LOOSE_SECTIONS = ("data", "model", "train", "sweep", "executor")
_MODEL_SPACE = "sweep.space.model"
_ADDRESS_SECTIONS = {key.partition(".")[0] for key in ADDRESS_KEYS}


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return the overrides as Hydra reads them.

    Raises:
        HydraException, ValueError: One of them is not in Hydra's grammar.
    """
    return OverridesParser.create().parse_overrides(list(overrides))


def loosen(overrides: Sequence[str], sections: Collection[str] = _LOOSE_SECTIONS) -> list[str]:
    """Return overrides that Hydra understands.

    The parameters of a function are keys, whether or not the YAML file lists them. An option of a nested group may be
    chosen like a key: `train.optimizer=sgd` is `train/optimizer=sgd`. What is removed from the space of a model, which
    stands beside the model, becomes null.

    Args:
        overrides: Of the command line.
        sections: Of the command's configuration.

    Raises:
        HydraException, ValueError: One of them is not in Hydra's grammar.
    """
    return [_loosen(override, parsed, sections) for override, parsed in zip(overrides, parse(overrides), strict=True)]


def keep_texts(overrides: Sequence[str]) -> list[str]:
    """Return overrides of which Hydra keeps the text as it was typed, where it would write a number in another way.

    A number in quotes is read as one where a number is expected; elsewhere `sweep.study=1e3` would become `1000.0`.

    Raises:
        HydraException, ValueError: One of them is not in Hydra's grammar.
    """
    return [_keep_text(override, parsed) for override, parsed in zip(overrides, parse(overrides), strict=True)]


def _keep_text(override: str, parsed: Override) -> str:
    key, _, text = override.partition("=")
    value = hydra_internals.list_values(parsed)[0]
    is_number = parsed.value_type is ValueType.ELEMENT and isinstance(value, int | float)
    is_free = parsed.key_or_group.startswith(("sweep.space", "hydra"))  # their values are not read by `coerce.py`
    if not is_number or is_free or isinstance(value, bool) or str(value) == text.strip():
        return override
    return f"{key}={QuotedString(text.strip(), Quote.single).with_quotes()}"


def _loosen(override: str, parsed: Override, sections: Collection[str]) -> str:
    key = parsed.key_or_group
    if key.partition(".")[0] not in sections:
        return override
    if key in NESTED_GROUPS:
        return override.replace(key, NESTED_GROUPS[key], 1)
    if parsed.type is OverrideType.CHANGE and key.startswith(LOOSE):
        return f"++{override}"
    if parsed.is_delete() and f"{key}.".startswith(f"{_MODEL_SPACE}."):
        return f"++{key}=null"
    return override


def group_of(override: Override) -> str:
    """Return the group of an override that chooses an option; for any other, its key."""
    return NESTED_GROUPS.get(override.key_or_group, override.key_or_group)


def write(value: str) -> str:
    """Return a logged value in Hydra's grammar."""
    if value.startswith("[") or re.fullmatch(r"[\w./+-]+", value):
        return value
    return QuotedString(value, Quote.single).with_quotes()


def split_runs(overrides: Sequence[str], *, multirun: bool) -> list[list[str]]:
    """Return the overrides of each run: of one, or of one for each value of `KEY=A,B`.

    Raises:
        HydraException, ValueError: One of them is not in Hydra's grammar.
    """
    return hydra_internals.split_sweep(parse(overrides)) if multirun else [list(overrides)]


def without_group(overrides: Sequence[str], group: str) -> tuple[list[str], list[str]]:
    """Split overrides into those that leave `group` alone, and those that select its option or set a key of it."""
    kept: list[str] = []
    dropped: list[str] = []
    for override, parsed in zip(overrides, parse(overrides), strict=True):
        key = parsed.key_or_group
        (dropped if key == group or key.startswith((f"{group}.", f"{group}/")) else kept).append(override)
    return kept, dropped


def mask(override: str) -> str:
    """Return the override with stars for the secrets in its addresses, however it quotes them.

    From then on `secrets.hide` knows these secrets. An override that cannot be parsed loses the whole of a value that
    may be an address. Masking twice changes nothing.
    """
    try:
        (parsed,) = parse([override])
    except (HydraException, ValueError):
        return _mask_unparsed(override)
    values = hydra_internals.list_values(parsed)
    is_address = parsed.key_or_group in (*ADDRESS_KEYS, *_ADDRESS_SECTIONS)
    masked = [_mask_value(value, is_address=is_address) for value in values]
    if masked == values:
        return hide(override)
    return f"{parsed.get_key_element()}={','.join(map(hydra_internals.write_value, masked))}"


def _mask_value(value: Any, *, is_address: bool) -> Any:
    if isinstance(value, list):
        return [_mask_value(one, is_address=is_address) for one in value]
    if isinstance(value, dict):
        return {key: _mask_value(one, is_address=is_address) for key, one in value.items()}
    if isinstance(value, QuotedString):
        return QuotedString(_mask_text(value.text, is_address=is_address), value.quote)
    if not isinstance(value, str):
        return value
    masked = _mask_text(value, is_address=is_address)
    return value if masked == value else QuotedString(masked, Quote.single)


def _mask_text(text: str, *, is_address: bool) -> str:
    # An interpolation can hold a secret only in a default. Its result becomes an address when it is composed.
    return str(Address(text)) if is_address and not text.startswith("${") else hide(text)


def _mask_unparsed(override: str) -> str:
    key, sign, value = override.partition("=")
    if not any(mark in override for mark in ("@", "?", ":/")):
        return hide(override)
    return f"{key}={STARS}" if sign and "@" not in key and ":/" not in key and value else STARS
