"""Why a training did not end: because of its configuration, of what surrounds it, or of anything else."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Cause(enum.Enum):
    """What kept a training from its end."""

    diverged = "diverged"
    """A verdict on the configuration: it comes out the same whenever it is trained."""
    surroundings = "surroundings"
    """Space, memory, a signal: it says nothing about the configuration."""
    error = "error"
    """Anything else, such as a crash: it counts as a failure, and may not happen again."""


@dataclass(frozen=True)
class Failure:
    """Why a training did not end.

    Attributes:
        reason: Begins with the cause.
        next_step: What the user can do about surroundings.
    """

    cause: Cause
    reason: str
    next_step: str = ""


class TrainingFailedError(Exception):
    """A training diverged, or failed by an error; the message is the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class HinderedError(Exception):
    """What surrounds a training kept it from its end; the message is the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


RESUME = "run the same command again, which resumes"
MEMORY_STEP = (
    f"free some memory or lower sweep.num_workers, and {RESUME}; or narrow sweep.space, which reuses the epochs that "
    "are already trained"
)

CAUSE_ATTRIBUTE = "failure"
REASON = "reason"
# What version 0.1 wrote of a trial that failed by its surroundings; it kept the reason alone.
_SURROUNDINGS = re.compile(
    r"\w+: \[Errno \d+\]|(OSError|\w*MemoryError|ResourceExhaustedError|UserError): "
    r"|its worker died \(signal (9|15|2|1)\b"
)


def read_cause(attributes: Mapping[str, Any]) -> Cause:
    """Return the kind of failure that a failed trial has among its user attributes."""
    known = attributes.get(CAUSE_ATTRIBUTE)
    if known is not None:
        return Cause(known)
    reason = str(attributes.get(REASON))
    if reason.startswith("LossNotFiniteError"):
        return Cause.diverged
    return Cause.surroundings if _SURROUNDINGS.match(reason) else Cause.error
