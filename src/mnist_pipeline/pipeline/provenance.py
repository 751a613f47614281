"""The provenance of a run: the commit, uncommitted changes, versions and the machine."""

import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mnist_pipeline.pipeline import patch
from mnist_pipeline.system import paths, versions
from mnist_pipeline.tracking.record import Artifact, Tag

_log = logging.getLogger(__name__)


def describe(checkout: Path | None) -> dict[str, bytes]:
    """Return the artifacts that record versions, the machine and the code's uncommitted changes, by their paths."""
    changes = patch.make(checkout) if checkout else None
    return {
        Artifact.VERSIONS: json.dumps(versions.list_versions(), indent=2).encode(),
        Artifact.MACHINE: json.dumps(versions.describe_machine(), indent=2).encode(),
        **({Artifact.PATCH: changes.content} if changes and changes.content else {}),
    }


def code_tags() -> dict[str, str]:
    """Return the tags that name the code which runs, and what became of its uncommitted changes."""
    root = paths.checkout()
    state = git_state(root) if root else None
    if root is None or state is None:
        return {}
    changes = patch.make(root)
    if changes is None:
        _log.warning("the uncommitted changes of the code cannot be kept with the run: commit them")
    return {
        Tag.GIT_COMMIT: state.commit,
        Tag.GIT_DIRTY: str(state.is_dirty).lower(),
        Tag.GIT_PATCH: _describe_patch(changes),
    }


def _describe_patch(changes: patch.Patch | None) -> str:
    if changes is None:
        return "lost"
    if not changes.is_exact:
        return "masked"
    return "kept" if changes.content else "none"


@dataclass(frozen=True)
class GitState:
    """The commit that is checked out, and whether files differ from it."""

    commit: str
    is_dirty: bool


def git_state(folder: Path) -> GitState | None:
    """Return the state of the git checkout whose root is `folder`; None if it is not one, or git is missing."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, status = (patch.git(folder, *words) for words in (["rev-parse", "HEAD"], ["status", "--porcelain"]))
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit=commit.decode().strip(), is_dirty=bool(status.strip()))


def commit_stat(folder: Path, older: str, newer: str) -> str:
    """Return which files of code differ between two commits, and by how much; empty if git does not know both."""
    try:
        # The commits come from tags, which anybody may have written: they must not be taken for options.
        words = ("--no-color", "--stat", "--end-of-options", older, newer, "--", *patch.CODE_PATHS)
        return patch.git(folder, "diff", *words).decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
