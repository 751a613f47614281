"""What the documents and the Makefile promise exists: every command, flag, key, link, number and example."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Cli
from reports_home import copy_of

from mnist_pipeline import cli
from mnist_pipeline.config import compose
from mnist_pipeline.registry import settings as registry_settings
from mnist_pipeline.sweep import settings

sys.path.insert(0, str(ROOT / "docs"))
import make_configuration

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
README = PAGES["README.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")


def commands() -> Iterator[list[str]]:
    """Yield every command of ours in the documents, as a list of words, without its options for output."""
    for page in PAGES.values():
        for line in code_of(page).splitlines():
            words = (
                shlex.split(line.removeprefix("$ "), comments=True) if re.match(r"(\$ )?(make|mnist-p)", line) else []
            )
            if words[:1] == ["make"] and len(words) > 1:
                arguments = [word for word in words[2:] if not word.startswith("ARGS=")]
                passed = [shlex.split(word.removeprefix("ARGS=")) for word in words[2:] if word.startswith("ARGS=")]
                yield [words[1], *itertools.chain(*passed), *arguments]
            elif words:
                yield words[1:]


def test_every_make_target_in_the_documents_exists_and_every_target_is_listed() -> None:
    for page in PAGES.values():
        assert set(re.findall(r"(?:`|^|\$ )make ([a-z][a-z-]*)", page, re.MULTILINE)) <= TARGETS
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target} ", listed, re.MULTILINE) for target in TARGETS)


def test_every_command_is_in_the_readme_has_a_target_and_stands_in_a_document() -> None:
    assert set(cli.COMMANDS) <= TARGETS
    assert set(re.findall(r"^\| `make ([a-z]+)", README, re.MULTILINE)) == set(cli.COMMANDS)
    named = {words[0] for words in commands()}
    assert set(cli.COMMANDS) <= named


def test_the_readme_is_short_and_its_links_and_numbers_hold() -> None:
    assert len(README.encode()) < 7000
    for name, page in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", page):
            place, _, anchor = link.partition("#")
            if "://" in link or place.startswith("#"):
                continue
            file = (ROOT / name).parent / place
            assert file.exists(), f"{name}: {link}"
            headings = [re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in
                        re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)] if anchor else []  # fmt: skip
            assert not anchor or anchor in headings, f"{name}: {link}"
    shown = re.findall(r"\d[\d,.]* (?:s|times faster|of its time|images/s)", README.partition("## How fast")[2])
    assert len(shown) >= 6
    assert all(figure in PAGES["docs/benchmarks.md"] for figure in shown)


def test_every_document_can_be_reached_from_the_readme() -> None:
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} <= set(re.findall(r"\((docs/[\w-]+\.md)", README))
    pictures = {path.name for path in ROOT.glob("docs/*.png")}
    assert pictures == set(re.findall(r"!\[[^\]]+\]\((?:docs/)?([\w-]+\.png)\)", "\n".join(PAGES.values())))


def test_every_example_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose what is composed, and give the others' arguments to their parsers."""
    monkeypatch.setenv("STUDIES", "sqlite:///studies.db")
    num_seen = 0
    for command, *words in commands():
        overrides = [word for word in words if (re.match(r"[~\w]", word) and "=" in word) or word.startswith("~")]
        is_own = any(word.startswith(("data=stripes", "model=mine", "--config-dir")) for word in words)
        if command == "train" and not is_own:
            compose.check(overrides, multirun="-m" in words)
        elif command == "sweep" and not is_own:
            settings.compose_sweep(overrides)
        elif command == "promote":
            registry_settings.read_promote(overrides)
        elif command in ("compare", "diff", "report", "rollback", "history", "reproduce"):
            registry_settings.read([word for word in overrides if "." not in word or "=" in word.partition(" ")[0]])
        num_seen += 1
    assert num_seen > 60


def test_every_flag_in_the_documents_exists() -> None:
    for command, *words in commands():
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        if command in cli.COMMANDS and flags:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            asked = ["mnist-pipeline", "-sc", "query=bash"]
            line = f"mnist-pipeline {command} --"
            found = subprocess.run(
                asked, env={**os.environ, "PATH": path, "COMP_LINE": line}, capture_output=True, text=True, check=True
            )
            assert flags <= {one.strip() for one in found.stdout.splitlines()}, command


def test_every_key_is_documented_as_the_source_has_it() -> None:
    page = PAGES["docs/configuration.md"]
    assert make_configuration.renew(page) == page, "run make docs"
    documented = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    components = {
        "train.optimizer",
        "train.schedule",
        "train.early_stopping",
        "train.augment",
        "sweep.space",
        "sweep.confirm",
    }
    known = {*compose.RUN.known_keys(), *settings.SWEEP.known_keys(), *registry_settings.PROMOTE.known_keys()}
    wanted = {key for key in known if ("." in key or key in ("force", "wait")) and not key.startswith("sweep.space.")}
    assert wanted - documented <= components | {"model.name", "train.optimizer.name", "train.schedule.name"}


def test_the_pythons_in_the_documents_run(cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    """The notebook's table and the user's own script, on a store with a champion."""
    home = copy_of(reports_home, tmp_path / "home")
    for page in ("docs/runs.md", "docs/serving.md"):
        script = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_secrets_of_a_server_are_named_as_mlflow_names_them() -> None:
    from mlflow import environment_variables

    named = re.findall(r"`(MLFLOW_\w+)`", "\n".join(PAGES.values()))
    assert all(hasattr(environment_variables, name) for name in named)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_the_changelog_has_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert re.search(rf"^## {re.escape(version[1])} ", changelog, re.MULTILINE)
