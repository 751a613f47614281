"""What lies beside the store: checkpoints, caches, locks and unfinished files, and the space that they take."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mnist_pipeline.data import cache
from mnist_pipeline.doctor.finding import Finding, Remedy, show_bytes
from mnist_pipeline.pipeline.checkpoints import lock_of
from mnist_pipeline.sweep.storage import lock_of_study
from mnist_pipeline.system import locks, paths
from mnist_pipeline.tracking import runs, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import ALL
from mnist_pipeline.tracking.record import RunRecord, Tag

UNFINISHED_SEC = 3600.0
"""A file that is being written is younger."""

_PLACES = ("artifacts", "checkpoints", "cache", "optuna", "reports", "pending")


def find_checkpoints(opened: MlflowStore) -> Iterator[Finding]:
    """Yield the checkpoints that no run will resume from."""
    waiting: list[Path] = []
    for folder in sorted(paths.checkpoints_dir().glob("*/")):
        run = _find_run(opened, folder)
        if _is_in_use(folder, run):
            continue
        if run is not None and not run.is_finished and not run.is_deleted:
            waiting.append(folder)
            continue
        size = show_bytes(measure(folder))
        if run is not None:
            state = "was deleted" if run.is_deleted else "is done"
            what = f"the checkpoints of {run.label}, which {state}: remove them, {size}"
        else:
            what = f"the checkpoints {folder.name[:12]}, whose run is not in this store: remove them, {size}"
            if opened.uri != store.default_uri():
                yield Finding(Remedy.none, f"{what.partition(': ')[0]}: it may be in another one")
                continue
        yield Finding(Remedy.prune, what, partial(_remove_checkpoints, opened, folder))
    if waiting:
        size = show_bytes(sum(map(measure, waiting)))
        what = f"interrupted runs with checkpoints: {len(waiting)}, {size}; the same commands resume them"
        yield Finding(Remedy.none, what)


def _find_run(opened: MlflowStore, folder: Path) -> RunRecord | None:
    """Return the run whose checkpoints they are: of one training, or of a sweep, which the folder is named after."""
    id_file = folder / "id"
    with contextlib.suppress(OSError):
        resume_id = id_file.read_text(errors="replace").strip() if id_file.is_file() else folder.name
        if resume_id.isalnum():
            experiments = runs.experiment_ids(opened, with_deleted=True)
            found = runs.search(opened, experiments, {Tag.RESUME_ID: resume_id}, stages=ALL)
            return next(found, None)
    return None


def _is_in_use(folder: Path, run: RunRecord | None) -> bool:
    study = run.tags.get(Tag.STUDY) if run else None
    return locks.is_held(lock_of(folder.name)) or (study is not None and locks.is_held(lock_of_study(study)))


def _remove_checkpoints(opened: MlflowStore, folder: Path) -> str:
    run = _find_run(opened, folder)
    if _is_in_use(folder, run) or (run is not None and not run.is_finished and not run.is_deleted):
        return f"the checkpoints {folder.name[:12]} are in use again"
    shutil.rmtree(folder, ignore_errors=True)
    return f"the checkpoints {folder.name[:12]} are gone"


def find_caches() -> Iterator[Finding]:
    """Yield the decoded data sets: damaged ones are an error, the others only take space."""
    whole = 0
    for entry in cache.list_entries():
        if cache.is_whole(entry):
            whole += entry.stat().st_size
            continue
        what = f"the decoded images {entry.name} are damaged: remove them; they are decoded again"
        yield Finding(Remedy.fix, what, partial(_unlink, entry))
    if whole:
        what = f"decoded images in {cache.folder()}: remove them, {show_bytes(whole)}; they are decoded again"
        yield Finding(Remedy.prune, what, _clear_cache)


def _clear_cache() -> str:
    for entry in cache.list_entries():
        _unlink(entry)
    return "the decoded images are gone"


def find_files() -> Iterator[Finding]:
    """Yield unfinished files of killed commands, and locks that nobody holds and that lock nothing any more."""
    root = paths.mlruns_dir()
    now = time.time()
    for file in sorted(root.rglob(".*.unfinished")):
        if file.is_file() and now - file.stat().st_mtime > UNFINISHED_SEC:
            what = f"{file} was left unfinished: remove it, {show_bytes(file.stat().st_size)}"
            yield Finding(Remedy.fix, what, partial(_unlink, file))
    orphaned = [lock for lock in sorted(paths.checkpoints_dir().glob("*.lock")) if not lock.with_suffix("").exists()]
    orphaned += [
        lock for lock in sorted((root / "optuna").glob("[!.]*.lock")) if not lock.with_suffix(".journal").exists()
    ]
    for lock in orphaned:
        if not locks.is_held(lock):
            yield Finding(Remedy.fix, f"{lock} locks nothing: remove it", partial(_remove_lock, lock))


def _remove_lock(lock: Path) -> str:
    return f"{lock.name} is gone" if locks.remove(lock) else f"{lock.name} is in use again"


def _unlink(file: Path) -> str:
    file.unlink(missing_ok=True)
    return f"{file.name} is gone"


def describe_space(database: Path | None) -> str:
    """Return how much space the parts of `mlruns/` take, in one line."""
    root = paths.mlruns_dir()
    sizes = {name: measure(root / name) for name in _PLACES}
    if database is not None and database.exists():
        sizes["database"] = database.stat().st_size
    shown = ", ".join(f"{name} {show_bytes(size)}" for name, size in sizes.items() if size)
    return f"{show_bytes(sum(sizes.values()))} in {root}{f': {shown}' if shown else ''}"


def measure(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it may be gone by now
            total += file.lstat().st_size if not file.is_dir() else 0
    return total
