"""Why a training did not end: its configuration, its surroundings, or any other error."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Cause(enum.Enum):
    """The cause of a failed training."""

    diverged = "diverged"
    """The configuration: it fails in the same way every time."""
    surroundings = "surroundings"
    """Disk space, memory or a signal: not a verdict on the configuration."""
    error = "error"
    """Any other error, such as a crash: it counts as a failure, but may not happen again."""


@dataclass(frozen=True)
class Failure:
    """Why a training did not end.

    Attributes:
        reason: Starts with the cause.
        next_step: What the user can do about the surroundings.
    """

    cause: Cause
    reason: str
    next_step: str = ""

    def to_error(self) -> "TrainingFailedError | HinderedError":
        """Return the error that a training ends with."""
        return HinderedError(self) if self.cause is Cause.surroundings else TrainingFailedError(self)


class TrainingFailedError(Exception):
    """A training diverged, or failed by an error; the message is the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class HinderedError(Exception):
    """The surroundings of a training stopped it; the message is the reason."""

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
# How version 0.1 recorded a trial that its surroundings stopped; it kept only the reason.
_SURROUNDINGS = re.compile(
    r"\w+: \[Errno \d+\]|(OSError|\w*MemoryError|ResourceExhaustedError|UserError): "
    r"|its worker died \(signal (9|15|2|1)\b"
)


def read_cause(attributes: Mapping[str, Any]) -> Cause:
    """Return the cause in the user attributes of a failed trial."""
    known = attributes.get(CAUSE_ATTRIBUTE)
    if known is not None:
        return Cause(known)
    reason = str(attributes.get(REASON))
    if reason.startswith("LossNotFiniteError"):
        return Cause.diverged
    return Cause.surroundings if _SURROUNDINGS.match(reason) else Cause.error
