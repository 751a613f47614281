"""YAML of plain values. What is read is not trusted: it is bounded in size and depth, and never resolved."""

import contextlib
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml ships no types
    """Refuses deep nesting, and aliases, which can make a small file unfold to gigabytes."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the first is ten times faster
    """Quotes every text that Hydra would read as a number: to YAML itself, 1e3 is none."""

    def write_text(self, text: str) -> yaml.ScalarNode:
        """Represent a text."""
        style = None
        with contextlib.suppress(ValueError):
            float(text)
            style = "'"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.write_text)


def write(values: Any) -> str:
    """Return plain values as a YAML document that Hydra reads back as the same values."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False))


def read(content: bytes) -> Any:
    """Return the values in a YAML document. An interpolation such as `${oc.env:HOME}` stays text.

    Raises:
        ValueError: It is not YAML in UTF-8, is too large or too deep, or has an alias.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, more than {MAX_BYTES:,}")
    try:
        return yaml.load(content.decode(), Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"it cannot be read as YAML ({' '.join(str(error).split())[:200]})") from error
