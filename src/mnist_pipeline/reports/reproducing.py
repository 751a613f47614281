"""How a run is made again: the code, and the command."""

import shlex
from collections.abc import Mapping, Sequence

from mnist_pipeline.config import overrides as given
from mnist_pipeline.pipeline.fingerprint import UNDECIDING_KEYS
from mnist_pipeline.pipeline.provenance import PATCH_FILE
from mnist_pipeline.pipeline.sources import STAGE_ROOMS
from mnist_pipeline.reports.logged import PATCH, Logged
from mnist_pipeline.reports.page import Code, Item, Text
from mnist_pipeline.system import plain_yaml
from mnist_pipeline.tracking.tracker import PATCH_TAG

_OVERRIDES = "config/overrides.yaml"


def read_overrides(logged: Logged) -> list[str] | None:
    """Return the overrides that were asked for, but for those that say where it is tracked; None: not known."""
    content = logged.read(_OVERRIDES)
    if content is None:
        return None
    try:
        found = plain_yaml.read(content)
    except ValueError:
        found = None
    if not isinstance(found, list):
        logged.miss(_OVERRIDES)
        return None
    unneeded = ("tracking", "force", "wait")
    words = [str(word) for word in found]
    return [given.mask(word) for word in words if word.lstrip("+~").split("=")[0].split(".")[0] not in unneeded]


def deciding_overrides(params: Mapping[str, str]) -> list[str]:
    """Return overrides that name every value which decides a run's result, whatever it was asked for with."""
    keys = [key for key in params if key.split(".")[0] in STAGE_ROOMS and key not in UNDECIDING_KEYS]
    groups = [f"{key.removesuffix('.name')}={params[key]}" for key in keys if key.endswith(".name")]
    fallback = ["data.fallback=null"] if "data.fallback" in params else []  # rather no run than one on other data
    return [*groups, *(f"{key}={params[key]}" for key in keys if not key.endswith(".name")), *fallback]


def check_out(logged: Logged, uri: str) -> list[Item]:
    """Return how to get the code that the run ran with, from git and from the store at `uri`."""
    tags = logged.run.tags
    commit = tags.get("mlflow.source.git.commit")
    if not commit:
        return [Text("It did not run from a git checkout: install the version that environment/versions.json names.")]
    lines = [f"git checkout {shlex.quote(commit)}"]
    if tags.get("git.dirty") != "true" or tags.get(PATCH_TAG) == "none":
        return [Code(lines[0])]
    is_masked = tags.get(PATCH_TAG) == "masked"
    if is_masked and logged.look(PATCH) is None:
        text = "Files that are not code, or hold secrets, were in no commit: they are not kept with the run."
        return [Code(lines[0]), Text(text, is_warning=True)]
    if not is_masked and (tags.get(PATCH_TAG) != "kept" or logged.read(PATCH) is None):
        text = "The code had changes that are in no commit and were not kept: this commit may not be what ran."
        return [Code(lines[0]), Text(text, is_warning=True)]
    lines += [
        f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow artifacts download \\\n"
        f"    --run-id {logged.run.run_id} --artifact-path {PATCH} --dst-path .",
        f"git apply --whitespace=nowarn {PATCH_FILE}",
    ]
    text = "The code had changes that are in no commit; the run has them as a patch"
    lacking = ", but for secrets, which are masked, and files that are not code" if is_masked else ""
    return [Text(f"{text}{lacking}.", is_warning=is_masked), Code("\n".join(lines))]


def command(name: str, overrides: Sequence[str]) -> str:
    """Return the line to type."""
    words = " ".join(shlex.quote(word) for word in overrides)
    return f"mnist-pipeline {name} {words}".rstrip()
