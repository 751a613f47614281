"""What surrounds a run: versions, the machine, the state of the code."""

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODEL_LIBRARIES = ("tensorflow", "keras", "numpy")
CODE_PATHS = ("src", "conf", "pyproject.toml", "requirements.lock")
PATCH_FILE = "code.patch"
MAX_PATCH_BYTES = 1_000_000


def describe(checkout: Path | None) -> dict[str, bytes]:
    """Return the files that tell of versions, the machine and how the code differs from its commit, by their names."""
    patch = code_patch(checkout) if checkout else None
    return {
        "versions.json": json.dumps(versions(), indent=2).encode(),
        "machine.json": json.dumps(machine(), indent=2).encode(),
        **({PATCH_FILE: patch} if patch else {}),
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
        commit, status = (_git(folder, *words) for words in (["rev-parse", "HEAD"], ["status", "--porcelain"]))
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit=commit.decode().strip(), is_dirty=bool(status.strip()))


def code_patch(folder: Path) -> bytes | None:
    """Return what `git apply` makes of the commit to get the code and configuration that are there, new files included.

    Empty where they are the commit's; None where git cannot say, and where it would be longer than `MAX_PATCH_BYTES`.
    """
    # Whatever the user's git is set to: a patch that applies anywhere.
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
    diff = ("diff", "--binary", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv", *prefixes)
    try:
        parts = [_git(folder, *diff, "HEAD", "--", *CODE_PATHS)]
        for name in _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE_PATHS).split(b"\0"):
            if name.endswith(b"/"):  # a checkout within this one
                return None
            if name:
                parts.append(_git(folder, *diff, "--no-index", "--", os.devnull, os.fsdecode(name), codes=(0, 1)))
    except (OSError, subprocess.SubprocessError):
        return None
    patch = b"".join(parts)
    return patch if len(patch) <= MAX_PATCH_BYTES else None


def commit_stat(folder: Path, older: str, newer: str) -> str:
    """Return which files of code differ between two commits, and by how much; empty where git does not know both."""
    try:
        # The commits come from tags, which anybody may have written: they are no options.
        words = ("--no-color", "--stat", "--end-of-options", older, newer, "--", *CODE_PATHS)
        return _git(folder, "diff", *words).decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> bytes:
    arguments = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(arguments, capture_output=True, timeout=10, check=False)
    if done.returncode not in codes:
        raise subprocess.CalledProcessError(done.returncode, arguments)
    return done.stdout
