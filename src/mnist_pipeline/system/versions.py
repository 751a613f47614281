"""TODO."""

import importlib.metadata
import os
import platform

MODEL_LIBRARIES = ("tensorflow", "keras", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and every installed distribution, by name."""
    installed = {
        distribution.metadata["Name"].lower(): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}


def requirements(names: tuple[str, ...]) -> list[str]:
    """Return `name==version` of the named distributions, as installed."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def machine() -> dict[str, str | int | None]:
    """Return the system, the processor's kind and its number of cores."""
    return {"system": platform.platform(), "processor": platform.machine(), "num_cores": os.cpu_count()}
