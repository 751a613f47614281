"""What a reproduction came to, as plain values."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Finding:
    """How one part of a run compares with the same part of another.

    Attributes:
        part: What was compared, such as "data" or "weights".
        is_same: None if it cannot be told.
        detail: The first difference and its size, or why it cannot be told; empty if nothing differs.
    """

    part: str
    is_same: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a reproduction came to.

    Attributes:
        original: Id of the run that was trained again.
        reproduction: Id of the new run.
        is_identical: Whether every part of the result is the same to the last bit.
        changes: What decided the result then, against now.
        results: The parts of the result, then against now.
    """

    original: str
    reproduction: str
    is_identical: bool
    changes: tuple[Finding, ...]
    results: tuple[Finding, ...]

    def to_json(self) -> str:
        """Return it as it is logged on both runs."""
        return json.dumps(asdict(self), indent=2)
