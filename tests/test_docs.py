"""What the documents and the Makefile promise exists, and imports point one way."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline import cli
from mnist_pipeline.config import compose
from mnist_pipeline.sweep import space

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PACKAGE = ROOT / "src" / "mnist_pipeline"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}

# From the bottom up: a module imports only those to its left.
ORDER = (
    "address", "shown", "errors", "files", "signals", "paths", "quiet", "scratch", "ownership", "config", "overrides",
    "plain_yaml", "composing", "fingerprint", "mnist", "data", "model", "train", "checkpoint", "evaluate",
    "sweep.space", "sweep.confirm", "figures", "patch", "environment", "reasons", "patience", "sqlite_store", "store",
    "tracking", "mlflow_store", "artifacts", "integrity", "logged_model", "mlflow_runs", "named_runs",
    "mlflow_tracking", "request", "stages", "pipeline", "registry.comparison", "registry.gates", "registry.settings",
    "registry.versions", "registry.ledger", "registry.candidates", "registry.evidence", "registry.changes",
    "registry.promotion", "registry.rollback", "champion", "images", "arrays", "tables", "predict", "web", "serve",
    "mlflow_ui", "console", "registry.console", "looking.naming", "looking.values", "looking.select",
    "looking.configurations", "looking.compare", "looking.page", "looking.logged", "looking.comparison_page",
    "looking.diff", "looking.pictures", "looking.diff_page", "looking.reproducing", "looking.report",
    "looking.study_report", "looking.cards", "looking.console", "sweep.failure", "sweep.storage", "sweep.study",
    "sweep.dashboard", "sweep.work", "sweep.server", "sweep.worker", "sweep.crew", "sweep.setting", "sweep.trainings",
    "sweep.search", "sweep.summary", "sweep.run", "sweep.console", "commands.arguments", "commands.importing",
    "commands.hydra_app", "commands.train", "commands.sweep", "commands.registry", "commands.champion",
    "commands.looking", "commands.pages", "commands.doctor", "cli",
)  # fmt: skip
PURE = ("model", "train", "evaluate", "figures")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_has_its_place() -> None:
    assert set(SOURCES) == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    lower = ORDER[: ORDER.index(module)]
    found = {name.removeprefix("mnist_pipeline.") for name in imports(SOURCES[module]) if "mnist_pipeline." in name}
    assert found & set(ORDER) <= set(lower)


@pytest.mark.parametrize("module", PURE)
def test_the_core_knows_nothing_of_tracking_or_composing(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(SOURCES[module])}
    assert not roots & {"mlflow", "hydra", "omegaconf", "optuna", "rich"}


def test_only_tracking_and_the_store_speak_to_mlflow() -> None:
    speaking = {
        module for module, path in SOURCES.items() if any(name.split(".")[0] == "mlflow" for name in imports(path))
    }
    runs = {"mlflow_runs", "mlflow_store", "mlflow_tracking", "mlflow_ui", "named_runs", "store"}
    files = {"artifacts", "integrity", "logged_model"}
    registry = {f"registry.{name}" for name in ("versions", "ledger", "candidates", "evidence", "changes")}
    looking = {f"looking.{name}" for name in ("logged", "select")}
    assert speaking == runs | files | registry | looking | {"champion", "serve"}


def test_every_make_target_in_the_readme_exists_and_every_target_is_listed() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert (
        set(re.findall(r"`make ([a-z-]+)", README)) | set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
        <= targets
    )
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target} ", listed, re.MULTILINE) for target in targets)


def test_every_command_stands_in_the_readme() -> None:
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
        base, values, fixed = compose.check_sweep([word for word in words if "=" in word or word.startswith("~")])
        space.read(values, base, fixed=fixed)
