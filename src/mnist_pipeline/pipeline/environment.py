"""What surrounds a run: versions, the machine, the state of the code."""

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mnist_pipeline.pipeline import patch

MODEL_LIBRARIES = ("tensorflow", "keras", "numpy")
PATCH_FILE = "code.patch"


def describe(checkout: Path | None) -> dict[str, bytes]:
    """Return the files that tell of versions, the machine and how the code differs from its commit, by their names."""
    kept = patch.make(checkout) if checkout else None
    return {
        "versions.json": json.dumps(versions(), indent=2).encode(),
        "machine.json": json.dumps(machine(), indent=2).encode(),
        **({PATCH_FILE: kept.content} if kept and kept.content else {}),
    }


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
        commit, status = (patch.git(folder, *words) for words in (["rev-parse", "HEAD"], ["status", "--porcelain"]))
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit=commit.decode().strip(), is_dirty=bool(status.strip()))


def commit_stat(folder: Path, older: str, newer: str) -> str:
    """Return which files of code differ between two commits, and by how much; empty where git does not know both."""
    try:
        # The commits come from tags, which anybody may have written: they are no options.
        words = ("--no-color", "--stat", "--end-of-options", older, newer, "--", *patch.CODE_PATHS)
        return patch.git(folder, "diff", *words).decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
