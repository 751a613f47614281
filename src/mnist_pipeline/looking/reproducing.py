"""How a run is made again: the code, and the command."""

import shlex
from collections.abc import Mapping, Sequence

import yaml

from mnist_pipeline.fingerprint import DECIDING_SECTIONS, UNDECIDING_KEYS
from mnist_pipeline.looking.diff import PATCH
from mnist_pipeline.looking.logged import Logged
from mnist_pipeline.looking.page import Code, Item, Text


def read_overrides(logged: Logged) -> list[str] | None:
    """Return the overrides that the run was asked for with, but for those that say where it is tracked."""
    content = logged.read("config/overrides.yaml")
    try:
        found = None if content is None else yaml.safe_load(content)
    except yaml.YAMLError:
        return None
    if not isinstance(found, list):
        return None
    unneeded = ("tracking", "force", "wait")
    return [str(word) for word in found if str(word).split("=")[0].split(".")[0] not in unneeded]


def deciding_overrides(params: Mapping[str, str]) -> list[str]:
    """Return overrides that name every value which decides a run's result, the group of the data first."""
    keys = [key for key in params if key.split(".")[0] in DECIDING_SECTIONS and key not in UNDECIDING_KEYS]
    chosen = [key for key in keys if not key.endswith(".name")]
    return [f"data={params['data.name']}", *(f"{key}={params[key]}" for key in chosen)] if "data.name" in params else []


def check_out(logged: Logged) -> list[Item]:
    """Return how to get the code that the run ran with."""
    tags = logged.run.tags
    commit = tags.get("mlflow.source.git.commit")
    if not commit:
        return [Text("It did not run from a git checkout: install the version that environment/versions.json names.")]
    if tags.get("git.dirty") != "true":
        return [Code(f"git checkout {commit}")]
    if logged.look(PATCH) is None:
        return [Code(f"git checkout {commit}"), Text("Files were changed beside the code; the code was this commit's.")]
    download = f"mlflow artifacts download --run-id {logged.run.run_id} --artifact-path {PATCH} --dst-path ."
    return [
        Text(f"The code had changes that are in no commit; the run's artifact {PATCH} has them."),
        Code(f"git checkout {commit}\n{download}\ngit apply {PATCH.split('/')[-1]}"),
    ]


def command(name: str, overrides: Sequence[str]) -> str:
    """Return the line to type."""
    words = " ".join(shlex.quote(word) for word in overrides)
    return f"mnist-pipeline {name} {words}".rstrip()
