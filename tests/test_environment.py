import os
import subprocess
from pathlib import Path

import pytest

from mnist_pipeline.pipeline import patch, provenance
from mnist_pipeline.pipeline.patch import Patch


def git(folder: Path, *words: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *words], env={**os.environ, **identity}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "src").mkdir(parents=True)
    (folder / "conf").mkdir()
    (folder / "src" / "kept.py").write_text("one\ntwo\n")
    (folder / "src" / "gone.py").write_text("gone\n")
    (folder / "conf" / "a.yaml").write_text("a: 1\n")
    (folder / "notes.txt").write_text("not code\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_checkout_has_no_patch(checkout: Path) -> None:
    assert patch.make(checkout) == Patch(b"", is_exact=True)
    (checkout / "notes.txt").write_text("changed\n")
    assert patch.make(checkout) == Patch(b"", is_exact=True)
    assert "code.patch" not in provenance.describe(checkout)


def test_the_patch_gives_the_code_that_was_there(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "config", "diff.noprefix", "true")  # as some have it
    git(checkout, "config", "color.ui", "always")
    git(checkout, "config", "diff.context", "0")
    (checkout / "src" / "kept.py").write_text("one\nthree\n")
    (checkout / "src" / "gone.py").unlink()
    (checkout / "src" / "new one.py").write_text("new\n")
    (checkout / "src" / "täst.py").write_text("b = 2\n")
    (checkout / "conf" / "staged.yaml").write_text("b: 2\n")
    git(checkout, "add", "conf/staged.yaml")
    (content,) = [
        content for name, content in provenance.describe(checkout).items() if name == "environment/code.patch"
    ]
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(checkout), str(other))
    (tmp_path / "code.patch").write_bytes(content)
    git(other, "apply", str(tmp_path / "code.patch"))
    for folder in ("src", "conf"):
        there = {path.name: path.read_bytes() for path in (checkout / folder).iterdir()}
        assert {path.name: path.read_bytes() for path in (other / folder).iterdir()} == there


def test_a_patch_that_is_too_long_is_left_out(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "MAX_PATCH_BYTES", 100)
    (checkout / "src" / "kept.py").write_text("long\n" * 100)
    assert patch.make(checkout) is None


def test_a_checkout_within_the_checkout_cannot_be_kept(checkout: Path) -> None:
    git(checkout, "init", "--quiet", "src/inner")
    (checkout / "src" / "inner" / "a.py").write_text("")
    assert patch.make(checkout) is None


def test_outside_of_a_checkout_there_is_none(tmp_path: Path) -> None:
    assert patch.make(tmp_path) is None
    assert provenance.git_state(tmp_path) is None
    assert provenance.commit_stat(tmp_path, "a", "b") == ""


def test_what_differs_between_two_commits(checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "src" / "kept.py").write_text("one\n")
    git(checkout, "commit", "--quiet", "-a", "-m", "second")
    second = git(checkout, "rev-parse", "HEAD").strip()
    assert "src/kept.py" in provenance.commit_stat(checkout, first, second)


def test_a_commit_that_is_an_option_is_none(checkout: Path, tmp_path: Path) -> None:
    assert provenance.commit_stat(checkout, f"--output={tmp_path / 'written'}", "HEAD") == ""
    assert not (tmp_path / "written").exists()
