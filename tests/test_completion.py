"""What bash and zsh offer, through the functions that are installed there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import command
from reports_home import CHAMPION, NAMES, client_of

BASH = """
    eval "$(mnist-pipeline -sc install=bash)"
    COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=(mnist-pipeline)
    compopt() {{ local IFS=' '; echo "compopt $*"; }}
    _mnist_pipeline
    printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
    eval "$(mnist-pipeline -sc install=zsh)"
    BUFFER={line!r}; CURSOR=${{#BUFFER}}; words=(mnist-pipeline)
    compadd() {{ shift 3; print -l -- "$@" }}
    _files() {{ print the files }}
    _mnist_pipeline
"""


def offered(line: str, home: Path, *, shell: str = "bash") -> list[str]:
    """Return what the shell offers at the end of `line`; a blank behind a candidate ends the word."""
    path = f"{Path(command()[0]).parent}:{os.environ['PATH']}"
    words = ["bash", "-c", BASH] if shell == "bash" else ["zsh", "-f", "-c", ZSH]
    environment = {**os.environ, "PATH": path, "MNIST_PIPELINE_HOME": str(home), "HOME": str(home)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    found = subprocess.run(
        [*words[:-1], words[-1].format(line=line)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line for line in found.stdout.split("\n") if line]


def test_commands_flags_and_overrides(home: Path) -> None:
    assert offered("mnist-pipeline t", home) == ["train "]
    assert {"diff ", "dashboard ", "doctor "} <= set(offered("mnist-pipeline d", home))
    assert offered("mnist-pipeline train model.hid", home) == ["model.hidden_width="]
    assert offered("mnist-pipeline train preset=s", home) == ["smoke "]  # bash keeps what stands before the sign
    assert offered("mnist-pipeline train data=digits train.num_e", home) == ["train.num_epochs="]
    assert offered("mnist-pipeline sweep sweep.num_t", home) == ["sweep.num_trials="]
    assert offered("mnist-pipeline compare --gr", home) == ["--group-by "]
    assert offered("mnist-pipeline train --multi", home) == ["--multirun "]
    assert offered("mnist-pipeline history data=dig", home) == ["digits "]
    assert offered("mnist-pipeline nothing ", home) == []


def test_runs_studies_and_aliases_where_runs_are_named(reports_home: Path) -> None:
    (sweep,) = client_of(reports_home).search_runs(["1"], "tags.kind = 'sweep'")
    study = sweep.data.tags["study"]
    for name in ("diff", "report", "promote", "compare", "reproduce"):
        found = [one.strip() for one in offered(f"mnist-pipeline {name} ", reports_home)]
        assert {*NAMES, study, "champion", "digits-classifier@champion"} <= set(found)
        assert len(found) == len(set(found))
    assert offered(f"mnist-pipeline diff {NAMES[0]} {CHAMPION}", reports_home) == [f"{CHAMPION} "]
    assert offered("mnist-pipeline report digits-classifier@ch", reports_home) == ["champion "]
    assert offered("mnist-pipeline dashboard sweep.study=dig", reports_home) == [f"{study} "]
    assert offered("mnist-pipeline serve ", reports_home) == ["data=", "tracking.uri=", "tracking.experiment="]


def test_files_where_files_are_named(home: Path) -> None:
    for line in ("mnist-pipeline predict ", "mnist-pipeline compare --output x"):
        assert offered(line, home) == ["compopt -o default +o nospace"]


def test_without_a_store_nothing_fails(tmp_path: Path) -> None:
    assert offered("mnist-pipeline report ", tmp_path) == ["data=", "tracking.uri=", "tracking.experiment="]
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"something else" * 100)
    assert offered("mnist-pipeline report ", tmp_path) == ["data=", "tracking.uri=", "tracking.experiment="]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here: apt-get install zsh")
def test_zsh_offers_the_same(reports_home: Path) -> None:
    assert offered("mnist-pipeline t", reports_home, shell="zsh") == ["train "]
    assert offered("mnist-pipeline train preset=s", reports_home, shell="zsh") == ["preset=smoke "]
    assert offered("mnist-pipeline report champ", reports_home, shell="zsh") == ["champion "]
    assert offered("mnist-pipeline predict ", reports_home, shell="zsh") == ["the files"]
