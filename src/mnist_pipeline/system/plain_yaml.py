"""Untrusted YAML, read as plain values: bounded in size and depth, and never resolved."""

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
