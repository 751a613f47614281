"""The code and the versions of a run, brought back beside the checkout: a git worktree with a `.venv` of its own."""

import subprocess
from pathlib import Path

from mnist_pipeline.pipeline import patch
from mnist_pipeline.system import files, paths
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import Artifact, RunRecord, Tag


def bring_back(run: RunRecord) -> Path:
    """Return a checkout of the run's commit with its uncommitted changes, and a `.venv` from that commit's lock.

    An earlier one of the same run is used again. `git worktree remove` takes it away.

    Raises:
        UserError: There is no git checkout, it does not have the commit, or the changes were not kept.
    """
    checkout, commit = paths.checkout(), run.tags.get(Tag.GIT_COMMIT, "")
    if checkout is None or not commit:
        raise UserError("--worktree: the run, or this installation, is not from a git checkout")
    if run.tags.get(Tag.GIT_PATCH) not in ("none", "kept"):
        raise UserError(f"--worktree: the uncommitted changes of {run.label} were not kept: reproduce it without")
    folder = paths.mlruns_dir() / "worktrees" / f"{commit[:12]}-{run.run_id[:8]}"
    if not (folder / ".git").exists():
        _add(checkout, folder, commit)
        if run.tags.get(Tag.GIT_PATCH) == "kept":
            _apply(folder, run.read(Artifact.PATCH))
    # The first target of its Makefile that needs the .venv sets that up.
    done = subprocess.run(["make", "-C", str(folder), "--no-print-directory", "train", "ARGS=--help"], check=False)
    if done.returncode:
        raise UserError(f"--worktree: make cannot set up .venv in {folder}: fix that and run the same command again")
    return folder


def _add(checkout: Path, folder: Path, commit: str) -> None:
    try:
        patch.git(checkout, "worktree", "prune")
        patch.git(checkout, "worktree", "add", "--detach", "--force", str(folder), commit)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"--worktree: git has no commit {commit}: fetch it and run the same command again") from error


def _apply(folder: Path, changes: bytes) -> None:
    with files.scratch() as scratch:
        (scratch / "code.patch").write_bytes(changes)
        try:
            patch.git(folder, "apply", "--whitespace=nowarn", str(scratch / "code.patch"))
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"--worktree: the patch of the run does not apply in {folder}") from error
