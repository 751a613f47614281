"""The integrity of a run's files and of its model's files: each must be as logged, and there must be no other.

A run that finishes logs the SHA-256 of each of its files, and has the SHA-256 of that list as a tag: to change a file
unnoticed, one would have to change both the artifact store and the tracking store.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mnist_pipeline.tracking import runs
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import StoredRun
from mnist_pipeline.tracking.record import Artifact, Tag

# MLflow writes it beside a model that it loads from the registry.
WRITTEN_BY_LOADING = "registered_model_meta"
_WRITTEN_LATER = (Artifact.FILES, Artifact.REPORT, Artifact.REPRODUCTION)
_MODEL = "model/"
_MODEL_STAGE = ("layers.csv", "summary.txt", "untrained.json")
"""The files of a run's own folder `model/`; version 0.1 listed them together with the files of the logged model."""

_MOST_NAMED = 3


@dataclass(frozen=True)
class Seal:
    """A file as it was logged.

    Attributes:
        sha256: In hexadecimal; None for a run of version 0.1, which logged only the size.
    """

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Seals:
    """The files that a run logged, by their paths.

    Attributes:
        run: In the run's own folder.
        model: In the folder of its logged model.
    """

    run: Mapping[str, Seal]
    model: Mapping[str, Seal]


def seal(content: bytes) -> Seal:
    """Return size and SHA-256 of a file."""
    return Seal(len(content), hashlib.sha256(content).hexdigest())


def write_seals(seals: Seals) -> bytes:
    """Return `seals` as JSON, as they are logged."""
    return json.dumps(
        {part: {path: vars(one) for path, one in sorted(files.items())} for part, files in vars(seals).items()},
        indent=2,
    ).encode()


def read_seals(content: bytes) -> Seals:
    """Return the seals that `write_seals` or version 0.1 wrote.

    Raises:
        ValueError: It is neither.
    """
    try:
        logged = json.loads(content)
        if set(logged) == {"run", "model"}:
            return Seals(**{part: {path: Seal(**one) for path, one in files.items()} for part, files in logged.items()})
        return _read_sizes({path: int(size) for path, size in logged.items()})
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a list of files") from error


def _read_sizes(logged: Mapping[str, int]) -> Seals:
    stage = {f"{_MODEL}{name}" for name in _MODEL_STAGE}
    of_model = {path for path in logged if path.startswith(_MODEL) and path not in stage}
    return Seals(
        run={path: Seal(size, None) for path, size in logged.items() if path not in of_model},
        model={path.removeprefix(_MODEL): Seal(logged[path], None) for path in of_model},
    )


def find_damage(store: MlflowStore, run_id: str) -> tuple[str, ...]:
    """Return how the files of a finished run and of its model differ from the logged ones; empty if they do not.

    Raises:
        UserError: The files cannot be read now.
        GoneError: There is no such run.
    """
    run = runs.require_stored(store, run_id)
    folder = ArtifactFolder(run.artifact_uri, tracking_uri=store.connected)
    seals, problem = read_list(folder.read, run.tags)
    if seals is None:
        return (problem,)
    of_run = compare(seals.run, folder, ignored=_WRITTEN_LATER)
    of_model = {
        kind: [f"{_MODEL}{path}" for path in paths] for kind, paths in _compare_model(store, run, seals).items()
    }
    return describe({kind: of_run.get(kind, []) + of_model.get(kind, []) for kind in ("missing", "changed", "extra")})


def read_list(read: Callable[[str], bytes], tags: Mapping[str, str]) -> tuple[Seals | None, str]:
    """Return the files that a run logged, or None and the reason why the list cannot be used.

    Args:
        read: Returns the bytes of an artifact of the run.
        tags: Of the run.
    """
    try:
        content = read(Artifact.FILES)
    except FileNotFoundError:
        return None, f"missing: {Artifact.FILES}"
    if Tag.FILES_DIGEST in tags and hashlib.sha256(content).hexdigest() != tags[Tag.FILES_DIGEST]:
        return None, f"changed: {Artifact.FILES}"
    try:
        return read_seals(content), ""
    except ValueError:
        return None, f"changed: {Artifact.FILES}"


def compare(seals: Mapping[str, Seal], folder: ArtifactFolder, *, ignored: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return the paths of the files in `folder` that are missing, changed or extra, by these words.

    Raises:
        UserError: A file cannot be read now.
    """
    found = {path: size for path, size in folder.sizes().items() if path not in ignored}
    changed = [
        path
        for path, one in seals.items()
        if path in found and (found[path] != one.size or (one.sha256 and seal(folder.read(path)) != one))
    ]
    return {
        "missing": sorted(seals.keys() - found.keys()),
        "changed": sorted(changed),
        "extra": sorted(found.keys() - seals.keys()),
    }


def describe(differences: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Return a phrase per kind of difference, with the first few paths."""
    return tuple(f"{kind}: {_name_some(paths)}" for kind, paths in differences.items() if paths)


def find_model_damage(seals: Mapping[str, Seal], folder: ArtifactFolder) -> tuple[str, ...]:
    """Return how the files in `folder` differ from those of the logged model; empty if they do not.

    Raises:
        UserError: The files cannot be read now.
    """
    return describe(compare(seals, folder, ignored=[WRITTEN_BY_LOADING]))


def _name_some(paths: list[str]) -> str:
    rest = len(paths) - _MOST_NAMED
    return ", ".join(paths[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _compare_model(store: MlflowStore, run: StoredRun, seals: Seals) -> dict[str, list[str]]:
    model = runs.find_model(store, run)
    if model is None:
        return {"missing": sorted(seals.model)}
    folder = runs.open_model_folder(store, model)
    return compare(seals.model, folder, ignored=[WRITTEN_BY_LOADING])
