"""The time that commands take in stores that have grown."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.grown_store import SMALL, fill
from benchmarks.measuring import PIPELINE, Row, python, run, time_first_line

SIZES = {1_000: 100, 10_000: 1_000}
"""Numbers of runs, and of the decisions about the champion."""
NUM_TIMES = 3
_TEST_DATA = "data=digits"
# What each command imports, without looking for garbage meanwhile, and without taking it down at the end, as it does.
_IMPORTS = """
import gc; gc.disable()
from mnist_pipeline.config import compose
from mnist_pipeline.tracking import find_run, mlflow_store
"""
_REPORTS = f"{_IMPORTS}from mnist_pipeline.reports import page, terminal, "
_WRITING = "import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store"
_COMMANDS = {
    "compare --top 20": (["compare", _TEST_DATA, "--top", "20"], f"{_REPORTS} compare, comparison_page, select", 4.0),
    "diff": (
        ["diff", "digits-dense-e1-s0", "digits-dense-e1-s1", _TEST_DATA],
        f"{_REPORTS} diff, diff_page, figures, pictures; import sklearn.datasets",
        1.0,
    ),
    "report": (["report", "digits-dense-e1-s0", _TEST_DATA], f"{_REPORTS} cards\n{_WRITING}", 1.0),
    "history": (["history", _TEST_DATA], f"{_IMPORTS}from mnist_pipeline.registry import changes, history", 1.0),
    "promote --dry-run": (
        ["promote", _TEST_DATA, "--dry-run", "promote.min_test_accuracy=0.1"],
        f"{_IMPORTS}from mnist_pipeline.system.heavy_imports import import_keras; import_keras()\n"
        "import mlflow, sklearn.datasets; from mnist_pipeline.registry import promote",
        1.0,
    ),
    "train, which finds its past run": (
        ["train", *SMALL],
        f"{_IMPORTS}from mnist_pipeline.pipeline import run; import sklearn.datasets",
        1.0,
    ),
}


def measure_stores() -> Iterator[Row]:
    """Measure each command in a store of each size, and take away what its imports take."""
    with tempfile.TemporaryDirectory() as folder:
        homes = {size: Path(folder, str(size)) for size in SIZES}
        for size, home in homes.items():
            fill(home, num_runs=size, num_entries=SIZES[size])
        for name, (arguments, imports, bound) in _COMMANDS.items():
            beyond: dict[int, list[float]] = {size: [] for size in SIZES}
            for _ in range(NUM_TIMES + 1):
                imported = run(python("-c", f"{imports}\nimport os; os._exit(0)")).seconds
                for size, home in homes.items():
                    beyond[size].append(run([*PIPELINE, *arguments], home=home).seconds - imported)
            shown = ", ".join(f"{statistics.median(seconds[1:]):.1f} s" for seconds in beyond.values())
            sizes = " and ".join(f"{size:,}" for size in SIZES)
            yield Row(
                f"`mnist-pipeline {name}`, beyond its imports, in stores of {sizes} runs", shown, f"at most {bound:g} s"
            )
        small = homes[min(SIZES)]
        firsts = [
            statistics.median(time_first_line([*PIPELINE, *_COMMANDS[name][0]], home=small) for _ in range(NUM_TIMES))
            for name in ("compare --top 20", "history", "diff", "report")
        ]
        heavy = statistics.median(run(python("-c", "import mlflow")).seconds for _ in range(NUM_TIMES))
        yield Row(
            f"first line of `compare`, `history`, `diff` and `report`, in a store of {min(SIZES):,} runs, and "
            "`import mlflow`",
            f"{', '.join(f'{seconds:.1f} s' for seconds in firsts)}; {heavy:.1f} s",
            "at most 1.5 s",
        )
