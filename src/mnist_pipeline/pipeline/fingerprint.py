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
from mnist_pipeline.system import versions

NUMERIC_LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pandas")

NUMERIC_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "TF_ENABLE_MKL_NATIVE_FORMAT", "TF_XLA_FLAGS", "XLA_FLAGS", "TF_USE_LEGACY_KERAS"),
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("DNNL_MAX_CPU_ISA", "DNNL_CPU_ISA_HINTS", "DNNL_DEFAULT_FPMATH_MODE"),
    *("OPENBLAS_CORETYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES"),
)
"""Variables that change, or may change, the bits of a training."""

_DECIDING_DATA_KEYS = ("data.name", "data.validation_size", "data.split_seed")
"""The other keys of `data` say where it is and how it is read: its digest covers what was found."""


def is_deciding(key: str) -> bool:
    """Return whether the value of a dotted key decides a run's result by itself."""
    section = key.split(".")[0]
    if section == "data":
        return key in _DECIDING_DATA_KEYS
    return section in sources.STAGE_ROOMS and key != "train.checkpoint_every"


def fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256, in hexadecimal, of the configuration, the data, the code and the versions behind a result.

    Args:
        config: Resolved: after a fallback the one that the run has.
        data_digest: SHA-256 of everything about the data set that decides, `Found.identity`.
    """
    return _sha256(deciding(config, data_digest=data_digest))


def training_fingerprint(config: Config, *, data_digest: str) -> str:
    """Return the SHA-256 of everything that decides the epochs of a training, but not how many there are.

    Two trainings with the same hash differ only in how long they train. Where the learning rate depends on the length,
    they have the same length.
    """
    everything = deciding(config, data_digest=data_digest)
    # Early stopping decides where a training ends, and nothing about its epochs.
    apart = ["evaluate.", "train.early_stopping."]
    if "num_steps" not in config.train.schedule.supplied:  # else the whole length decides every step
        apart.append("train.num_epochs")
    settings = {key: value for key, value in everything["config"].items() if not key.startswith(tuple(apart))}
    return _sha256({**everything, "config": settings})


def deciding(config: Config, *, data_digest: str) -> dict[str, Any]:
    """Return everything that decides a run's result: configuration, data, code, versions and the kind of machine."""
    return {
        "config": {key: value for key, value in config.flat().items() if is_deciding(key)},
        "data": data_digest,
        **_surroundings(*config.modules()),
    }


def describe_identity(config: Config, *, data_digest: str) -> str:
    """Return what `deciding` does as JSON, but the code as the digests of its modules."""
    identity = {**deciding(config, data_digest=data_digest), "code": _digest_code(*config.modules())}
    return json.dumps(identity, indent=2, sort_keys=True)


@functools.cache
def _digest_code(*modules: str) -> dict[str, str]:
    return digest_code(modules)


@functools.cache
def _surroundings(*modules: str) -> dict[str, Any]:
    # Once per process: the code that runs is the code at its start. And Python's parser is not thread-safe.
    return {
        "code": _sha256(_digest_code(*modules)),
        "versions": list_library_versions(),
        "machine": list_processor(),
        "environment": list_settings(),
    }


def list_settings() -> dict[str, str]:
    """Return the variables among `NUMERIC_VARIABLES` that are set."""
    return {name: os.environ[name] for name in NUMERIC_VARIABLES if os.environ.get(name)}


def list_processor() -> str:
    """Return the kind of processor and its instruction sets, by which numeric libraries choose their code."""
    return " ".join([platform.machine(), *versions.list_instruction_sets()])


def list_library_versions() -> dict[str, str]:
    """Return the versions of Python, without its patch level, and of the libraries that compute."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: importlib.metadata.version(name) for name in NUMERIC_LIBRARIES},
    }


def code_digest(modules: Sequence[str] = (), search_path: Sequence[str] | None = None) -> str:
    """Return the SHA-256 of what `digest_code` returns for these arguments."""
    return _sha256(digest_code(modules, search_path))


def digest_code(modules: Sequence[str] = (), search_path: Sequence[str] | None = None) -> dict[str, str]:
    """Return the SHA-256 of the syntax tree of each module that decides results, by the module's name.

    Comments, docstrings and layout are not in it: they void no checkpoint.

    Args:
        modules: As for `sources.find_deciding_modules`.
        search_path: As for `sources.find_deciding_modules`.
    """
    return {
        name: hashlib.sha256(
            ast.dump(sources.parse(file)).encode() if file.suffix == ".py" else file.read_bytes()
        ).hexdigest()
        for name, file in sources.find_deciding_modules(modules, search_path).items()
    }


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
