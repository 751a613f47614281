"""Stores that have grown: thousands of runs and of decisions, cloned from real ones.

`python -m benchmarks.grown_store HOME NUM_RUNS NUM_ENTRIES` makes two real runs on digits and promotes the first. Then
it clones the second run, with other seeds and widths and lower scores, and the decision, as rows of MLflow's tables.
"""

import os
import random
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import PIPELINE, ROOT

NUM_SEEDS = 20
SMALL = ["preset=smoke", "train.num_epochs=1"]
_TABLES = ("params", "tags", "metrics", "latest_metrics")
_SCORES = ("validation/accuracy", "test/accuracy")


def fill(home: Path, *, num_runs: int, num_entries: int) -> None:
    """Make the store."""
    for arguments in (
        ["train", *SMALL],
        ["train", *SMALL, "train.seed=1"],
        ["promote", "digits-dense-e1-s0", "data=digits", "promote.min_test_accuracy=0.1"],
    ):
        environment = {**os.environ, "MNIST_PIPELINE_HOME": str(home)}
        subprocess.run([*PIPELINE, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        chance = random.Random(0)

        def vary_run(number: int, table: str, key: str, value: object) -> object:
            varied = {
                "model.hidden_width": str(16 + number // NUM_SEEDS),
                "train.seed": str(1000 + number % NUM_SEEDS),
                "fingerprint": f"{number:064}",
                "result.digest": f"{number:064}",
                "resume.id": f"{number:032}",
                "mlflow.runName": f"clone-{number}",
            }
            if key in _SCORES and table in ("metrics", "latest_metrics"):
                return 0.1 + 0.1 * chance.random()
            return varied.get(key, value) if table in ("params", "tags") else value

        clone(database, _find(database, "train"), num_runs, vary_run)
        clone(database, _find(database, "promotion"), num_entries, lambda number, table, key, value: value)
    database.close()


def _find(database: sqlite3.Connection, kind: str) -> str:
    query = (
        "SELECT run_uuid FROM tags JOIN runs USING (run_uuid) WHERE key = 'kind' AND value = ? ORDER BY start_time DESC"
    )
    return str(database.execute(query, (kind,)).fetchone()[0])


def clone(
    database: sqlite3.Connection, original: str, num_clones: int, vary: Callable[[int, str, str, object], object]
) -> None:
    """Clone the rows of a run, one second apart and older than it; `vary` returns a clone's value of a key."""
    new = [uuid.UUID(int=random.Random(f"{original} {number}").getrandbits(128)).hex for number in range(num_clones)]
    for table in ("runs", *_TABLES):
        cursor = database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (original,))
        columns = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        clones = []
        for number, run_id in enumerate(new):
            for row in rows:
                values = dict(zip(columns, row, strict=True)) | {"run_uuid": run_id}
                if table == "runs":
                    values |= {"name": f"clone-{number}", "start_time": values["start_time"] - 1000 * (number + 1)}
                else:
                    values["value"] = vary(number, table, values["key"], values["value"])
                clones.append(tuple(values.values()))
        marks = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", clones)


if __name__ == "__main__":
    fill(Path(sys.argv[1]), num_runs=int(sys.argv[2]), num_entries=int(sys.argv[3]))
