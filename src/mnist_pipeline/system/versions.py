"""The versions of what is installed, and the machine."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

_VECTOR_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c", "asimd", "sve", "bf16", "i8mm")
"""Beginnings of the names of instruction sets, as Linux lists them, on x86 and ARM."""

MODEL_LIBRARIES = ("tensorflow", "keras", "numpy")


def list_versions() -> dict[str, str]:
    """Return the versions of Python and of every installed distribution, by name.

    What an interrupted upgrade left of a distribution has no name, and is left out.
    """
    named = ((found.metadata["Name"], found.version) for found in importlib.metadata.distributions() if found.metadata)
    installed = {name.lower(): version for name, version in named if name}
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}


def pin_requirements(names: tuple[str, ...]) -> list[str]:
    """Return `name==version` of the named distributions, as installed."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def describe_machine() -> dict[str, str | int | None]:
    """Return the system, the kind of processor and its number of cores."""
    return {"system": platform.platform(), "processor": platform.machine(), "num_cores": os.cpu_count()}


def list_instruction_sets() -> list[str]:
    """Return the vector instruction sets of the processor, sorted; none where the system does not list them."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    return sorted(flag for flag in (found[1].split() if found else ()) if flag.startswith(_VECTOR_FLAGS))


def count_usable_cores() -> int:
    """Return how many cores this process may use: `taskset` and containers may give it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
