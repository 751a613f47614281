"""What surrounds a run: versions, the machine, the state of the code."""

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out, and whether files differ from it."""

    commit: str
    is_dirty: bool


def git_state(folder: Path) -> GitState | None:
    """Return the state of the git checkout whose root is `folder`; None where that is none, or git is missing."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit=commit, is_dirty=bool(status))
