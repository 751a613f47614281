"""The fingerprint of a run: SHA-256 of everything that decides its result. Computed without TensorFlow."""

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from mnist_pipeline.config.sections import Config

DECIDING_SECTIONS = ("data", "model", "train", "evaluate")
DECIDING_MODULES = ("data", "model", "train", "evaluate")
NUMERIC_LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pandas")

UNDECIDING_KEYS = frozenset(
    {
        # They say where MNIST is looked for; what was found is in the data's digest.
        *("data.fallback", "data.npz_url", "data.idx_url", "data.timeout_sec", "data.num_retries"),
        "train.checkpoint_every",
    }
)

_PACKAGE = Path(__file__).parent


def fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256, in hexadecimal, of the configuration, the data, the code and the versions behind a result.

    Args:
        config: Resolved: after a fallback the one that the run has.
        data_digest: SHA-256 of the whole data set.
    """
    return _sha256(deciding(config, data_digest=data_digest))


def training_fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256 of all that decides a training but its length: of two with the same, one goes on the other."""
    everything = deciding(config, data_digest=data_digest)
    settings = {
        key: value
        for key, value in everything["config"].items()
        if not key.startswith("evaluate.") and key != "train.num_epochs"
    }
    return _sha256({**everything, "config": settings})


def deciding(config: Config, *, data_digest: str) -> dict[str, Any]:
    """Return what decides a run's result: configuration, data, code, versions and the kind of machine."""
    return {
        "config": {
            key: value
            for key, value in config.flat().items()
            if key.split(".")[0] in DECIDING_SECTIONS and key not in UNDECIDING_KEYS
        },
        "data": data_digest,
        **_surroundings(),
    }


@functools.cache
def _surroundings() -> dict[str, Any]:
    # Once a process: the code that runs is the one that was there at its start. And Python's parser is not for threads.
    return {
        "code": code_digest(),
        "versions": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: importlib.metadata.version(name) for name in NUMERIC_LIBRARIES},
        },
        "machine": platform.machine(),
    }


def code_digest(package: Path = _PACKAGE) -> str:
    """Return the SHA-256 of the syntax trees of the modules that decide results, and of what of ours they import.

    Comments, docstrings and layout are not in it: they void no checkpoint.
    """
    trees: dict[str, str] = {}
    pending = list(DECIDING_MODULES)
    while pending:
        module = pending.pop()
        if module in trees:
            continue
        tree = _without_docstrings(ast.parse((package / f"{module}.py").read_text(encoding="utf-8")))
        trees[module] = ast.dump(tree)
        pending += [name for name in _imports(tree) if (package / f"{name}.py").is_file()]
    return _sha256(trees)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body: list[ast.stmt] | None = getattr(node, "body", None)
        if isinstance(body, list):
            # Every bare string, not only the first: those below a field document it.
            node.body = [statement for statement in body if not _is_string(statement)]  # type: ignore[attr-defined]
    return tree


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.Module) -> list[str]:
    """Return the names of this package's modules that `tree` imports."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "mnist_pipeline":
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_pipeline."):
            found.append(node.module.split(".")[1])
    return found


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
