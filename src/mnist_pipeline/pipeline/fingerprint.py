"""The fingerprint of a run: SHA-256 of everything that decides its result. Computed without TensorFlow."""

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from mnist_pipeline.config.sections import Config
from mnist_pipeline.pipeline import sources

NUMERIC_LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pandas")

NUMERIC_VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "TF_USE_LEGACY_KERAS")
"""Variables that change the bits of a training."""

UNDECIDING_KEYS = frozenset(
    {
        # These keys say where to look for MNIST; the digest of the data covers what was found.
        *("data.fallback", "data.npz_url", "data.idx_url", "data.timeout_sec", "data.num_retries"),
        "train.checkpoint_every",
    }
)


def fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256, in hexadecimal, of the configuration, the data, the code and the versions behind a result.

    Args:
        config: Resolved: after a fallback the one that the run has.
        data_digest: SHA-256 of the whole data set.
    """
    return _sha256(deciding(config, data_digest=data_digest))


def training_fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256 of everything that decides a training except its length.

    Two trainings with the same hash differ only in how long they train.
    """
    everything = deciding(config, data_digest=data_digest)
    settings = {
        key: value
        for key, value in everything["config"].items()
        if not key.startswith("evaluate.") and key != "train.num_epochs"
    }
    return _sha256({**everything, "config": settings})


def deciding(config: Config, *, data_digest: str) -> dict[str, Any]:
    """Return everything that decides a run's result: configuration, data, code, versions and the kind of machine."""
    return {
        "config": {
            key: value
            for key, value in config.flat().items()
            if key.split(".")[0] in sources.STAGE_ROOMS and key not in UNDECIDING_KEYS
        },
        "data": data_digest,
        **_surroundings(),
    }


@functools.cache
def _surroundings() -> dict[str, Any]:
    # Once per process: the code that runs is the code at its start. And Python's parser is not thread-safe.
    return {
        "code": code_digest(),
        "versions": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: importlib.metadata.version(name) for name in NUMERIC_LIBRARIES},
        },
        "machine": platform.machine(),
        "environment": {name: os.environ.get(name, "") for name in NUMERIC_VARIABLES},
    }


def code_digest(search_path: Sequence[str] | None = None) -> str:
    """Return the SHA-256 of the syntax trees of all modules that decide results.

    Comments, docstrings and layout are not in it: they void no checkpoint.

    Args:
        search_path: As for `sources.find_deciding_modules`.
    """
    return _sha256(
        {
            name: ast.dump(sources.parse(file))
            if file.suffix == ".py"
            else hashlib.sha256(file.read_bytes()).hexdigest()
            for name, file in sources.find_deciding_modules(search_path).items()
        }
    )


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
