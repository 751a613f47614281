"""How much memory is left, so that what will not fit is refused before it is made."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return how much memory a process may still take, as the system and its control group say; None if unknown."""
    found = [number for number in (_of_system(), _of_group()) if number is not None]
    return min(found) if found else None


def require(shape: Sequence[int], dtype: npt.DTypeLike, *, instead: str) -> None:
    """Refuse an array that will not fit.

    Args:
        shape: Of the array.
        dtype: Of its elements.
        instead: The setting that makes it fit, for the message.

    Raises:
        ValueError: There is too little memory.
    """
    needed, available = math.prod(shape) * np.dtype(dtype).itemsize, available_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"{'x'.join(map(str, shape))} pixels need {needed / 1e9:,.1f} GB of memory, and {available / 1e9:,.1f} GB "
            f"are left: {instead}"
        )


def _of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _of_group() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
