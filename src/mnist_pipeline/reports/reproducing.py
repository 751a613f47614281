"""How to reproduce a run: the code and the command."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_pipeline.config import overrides as given
from mnist_pipeline.pipeline.sources import STAGE_ROOMS
from mnist_pipeline.reports.configurations import GROUPS
from mnist_pipeline.reports.logged import Logged
from mnist_pipeline.reports.page import Code, Item, Text
from mnist_pipeline.tracking.record import Artifact, Tag

_DOWNLOADING = ("npz_url", "idx_url", "url", "second_url", "timeout_sec", "num_retries")


def read_overrides(logged: Logged) -> list[str] | None:
    """Return the overrides of the command, except those about tracking; None if they are unknown."""
    words = logged.read_yaml_list(Artifact.OVERRIDES)
    if words is None:
        return None
    unneeded = ("tracking", "force", "wait")
    return [given.mask(word) for word in words if word.lstrip("+~").split("=")[0].split(".")[0] not in unneeded]


_UNNEEDED = ("train.checkpoint_every", "data.fallback", *(f"data.{key}" for key in _DOWNLOADING))


def deciding_overrides(params: Mapping[str, str], tags: Mapping[str, str]) -> list[str]:
    """Return overrides for every value that decides a run's result, whatever its command was."""
    keys = [key for key in params if key.split(".")[0] in STAGE_ROOMS and key not in _UNNEEDED]
    options = {"data.name": tags.get(Tag.DATA_OPTION, params.get("data.name", ""))}
    groups = [f"{key.removesuffix('.name')}={options.get(key, params[key])}" for key in keys if key.endswith(".name")]
    named = [key for key in keys if not key.endswith(".name") or options.get(key, params[key]) != params[key]]
    values = [f"{key}={_write(params[key])}" for key in named if params[key] != "None" or _is_of_option(key)]
    fallback = ["data.fallback=null"] if "data.fallback" in params else []  # fail instead of running on other data
    return [*groups, *values, *fallback]


def _is_of_option(key: str) -> bool:
    """Return whether `key` is a parameter of a function, whose default need not be null."""
    return any(key.startswith(f"{group}.") for group in GROUPS)


def _write(value: str) -> str:
    return "null" if value == "None" else given.write(value)


def check_out(logged: Logged, uri: str) -> list[Item]:
    """Return how to get the code of the run, from git and from the store at `uri`."""
    tags = logged.run.tags
    commit = tags.get(Tag.GIT_COMMIT)
    if not commit:
        return [Text("It did not run from a git checkout: install the version that environment/versions.json names.")]
    lines = [f"git checkout {shlex.quote(commit)}"]
    if tags.get(Tag.GIT_DIRTY) != "true" or tags.get(Tag.GIT_PATCH) == "none":
        return [Code(lines[0])]
    is_masked = tags.get(Tag.GIT_PATCH) == "masked"
    if is_masked and logged.read_optional(Artifact.PATCH) is None:
        text = "Uncommitted files that are not code, or hold secrets, are not kept with the run."
        return [Code(lines[0]), Text(text, is_warning=True)]
    if not is_masked and (tags.get(Tag.GIT_PATCH) != "kept" or logged.read(Artifact.PATCH) is None):
        text = "The code had uncommitted changes that were not kept: it may have differed from this commit."
        return [Code(lines[0]), Text(text, is_warning=True)]
    # The runs of a sweep share the patch of their parent.
    holder = logged.run.tags.get(Tag.PARENT, logged.run.run_id) if logged.run.is_untested else logged.run.run_id
    lines += [
        f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow artifacts download \\\n"
        f"    --run-id {holder} --artifact-path {Artifact.PATCH} --dst-path .",
        f"git apply --whitespace=nowarn {Path(Artifact.PATCH).name}",
    ]
    text = "The code had uncommitted changes; the run has them as a patch"
    lacking = ", except for secrets, which are masked, and files that are not code" if is_masked else ""
    return [Text(f"{text}{lacking}.", is_warning=is_masked), Code("\n".join(lines))]


def command(name: str, overrides: Sequence[str]) -> str:
    """Return the command line."""
    words = " ".join(shlex.quote(word) for word in overrides)
    return f"mnist-pipeline {name} {words}".rstrip()
