"""What surrounds a run: versions, the machine, the state of the code."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mnist_pipeline.pipeline import patch
from mnist_pipeline.system.versions import machine, versions

PATCH_FILE = "code.patch"


def describe(checkout: Path | None) -> dict[str, bytes]:
    """Return the files that tell of versions, the machine and how the code differs from its commit, by their names."""
    kept = patch.make(checkout) if checkout else None
    return {
        "versions.json": json.dumps(versions(), indent=2).encode(),
        "machine.json": json.dumps(machine(), indent=2).encode(),
        **({PATCH_FILE: kept.content} if kept and kept.content else {}),
    }


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
