"""A run's configuration, rebuilt from what it logged, and what has changed around it since. Nothing is trained here."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import SECTIONS, Config, TrackingConfig
from mnist_pipeline.pipeline.fingerprint import describe_identity
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.pipeline.verdict import Finding
from mnist_pipeline.system import plain_yaml
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking.record import Artifact, RecordError, RunRecord, Tag

_MOST_NAMED = 3


def rebuild(run: RunRecord, tracking: TrackingConfig) -> Config:
    """Return the configuration of a run, with another section `tracking` and without a fallback to other data.

    Raises:
        UserError: It logged none, or one of another version of this package.
    """
    try:
        logged = plain_yaml.read(run.read(Artifact.CONFIG))
        if not isinstance(logged, dict):
            raise ConfigError("not a configuration")
        own = {key: value for key, value in logged.items() if key in SECTIONS and key != "tracking"}
        config = compose.read_run({**own, "tracking": vars(tracking)})
    except RecordError as error:
        raise UserError(f"{run.label} logged no configuration: only runs of this version can be reproduced") from error
    except (ValueError, KeyError, ConfigError) as error:
        raise UserError(
            f"the configuration of {run.label} cannot be read by this version ({error}): check out the commit of the "
            f"run, {run.tags.get(Tag.GIT_COMMIT, 'which is unknown')}"
        ) from error
    return dataclasses.replace(config, data=dataclasses.replace(config.data, fallback=None))


def find_changes(run: RunRecord, request: Request) -> tuple[Finding, ...]:
    """Compare what decided the result of a run with what decides it here and now."""
    now = json.loads(describe_identity(request.config, data_digest=request.found.identity))
    try:
        then = run.read_json(Artifact.IDENTITY)
    except RecordError:
        then = {}
    parts = {
        "data": ("data", lambda value: {"images and labels": value}),
        "code": ("code", dict),
        "versions": ("versions", dict),
        "processor": ("machine", lambda value: dict.fromkeys(str(value).split(), "there")),
        "settings": ("environment", dict),
    }
    return tuple(_compare(part, then, now, key, read) for part, (key, read) in parts.items())


def _compare(part: str, then: Mapping[str, Any], now: Mapping[str, Any], key: str, read: Any) -> Finding:
    if key not in then:
        return Finding(part, None, "the run did not record it")
    try:
        before, after = read(then[key]), read(now[key])
    except (TypeError, ValueError):
        return Finding(part, None, f"{Artifact.IDENTITY} is damaged")
    names = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    shown = [_describe(name, before.get(name), after.get(name)) for name in names[:_MOST_NAMED]]
    rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return Finding(part, not names, ", ".join(shown) + rest)


def _describe(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{name} is new"
    if after is None:
        return f"{name} is gone"
    is_digest = len(str(before)) == len(str(after)) == 64
    return f"{name} has changed" if is_digest else f"{name} was {before}, is {after}"
