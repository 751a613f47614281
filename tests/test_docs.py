"""What the documents and the Makefile promise exists."""

import re
import subprocess

from conftest import ROOT

from mnist_pipeline import cli
from mnist_pipeline.config import compose
from mnist_pipeline.sweep import settings

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_make_target_in_the_readme_exists_and_every_target_is_listed() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert (
        set(re.findall(r"`make ([a-z-]+)", README)) | set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
        <= targets
    )
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target} ", listed, re.MULTILINE) for target in targets)


def test_every_command_is_in_the_readme() -> None:
    named = set(re.findall(r"mnist-pipeline ([a-z]+)", README))
    assert named == set(cli.COMMANDS)


def test_the_overrides_in_the_readme_compose() -> None:
    commands = re.findall(r"^(?:mnist-pipeline train|make train ARGS=)(.*)$", README, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = command.split("#")[0].replace('"', "").split()
        overrides = [word for word in words if "=" in word]
        compose.check(overrides, multirun="-m" in words)


def test_the_sweeps_in_the_readme_compose() -> None:
    commands = re.findall(r"^(?:mnist-pipeline sweep|make sweep ARGS=)(.*)$", README, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = re.sub("[\"']", "", command.split("#")[0]).split()
        settings.compose_sweep([word for word in words if "=" in word or word.startswith("~")])
