"""What `make` passes on to a command, and what it refuses before anything runs."""

import shlex
import subprocess

import pytest
from conftest import ROOT


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Let make print what it would run; the file that says that .venv is installed counts as new."""
    folder = subprocess.run(["sh", "-c", "pwd | cksum"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    installed = f".venv/installed-{folder.split()[0]}"
    return subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "-n", "-o", installed, *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["train"], []),
        (["train", "preset=smoke"], ["preset=smoke"]),
        (
            ["train", "model.hidden_width=64", "ARGS=-m train.seed=0,1"],
            ["-m", "train.seed=0,1", "model.hidden_width=64"],
        ),
        (["train", "data.name=it's [1,2] x"], ["data.name=it's [1,2] x"]),
        (["train", "tracking.uri=${oc.env:WHERE}"], ["tracking.uri=${oc.env:WHERE}"]),
        (["rollback", "ARGS=--reason 'sevens with a bar'"], ["--reason", "sevens with a bar"]),
        (["history", "PYTHON=python3.12"], []),
        (["studies"], []),
    ],
)
def test_key_value_words_are_passed_on(words: list[str], passed: list[str]) -> None:
    found = make(*words)
    assert found.returncode == 0, found.stderr
    assert shlex.split(found.stdout.splitlines()[-1]) == [".venv/bin/mnist-pipeline", words[0], *passed]


@pytest.mark.parametrize("words", [["report", "champion"], ["diff", "A", "B"], ["foo"], ["train", "mnist-dense-e9-s0"]])
def test_any_other_word_is_refused_with_the_right_form(words: list[str]) -> None:
    found = make(*words)
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    others = [word for word in words if word not in ("report", "diff", "train")]
    assert f'ARGS="{" ".join(others)}"' in line


def test_several_targets_are_several_commands() -> None:
    found = make("compare", "history")
    assert [line.split()[-1] for line in found.stdout.splitlines() if "bin/mnist-pipeline" in line] == [
        "compare",
        "history",
    ]
