"""The time that a comparison of many runs takes."""

import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import PIPELINE, Row, python, run
from mnist_pipeline.config import compose
from mnist_pipeline.tracking import store

NUM_RUNS = 1000
NUM_SEEDS = 20

# What the command imports, and without looking for garbage meanwhile, as it does.
_IMPORTS = """
import gc; gc.disable()
from mnist_pipeline.config import compose
from mnist_pipeline.tracking import find_run, mlflow_store
from mnist_pipeline.reports import compare, comparison_page, page, select, terminal
"""


def fill(home: str) -> None:
    """Make a store with finished runs of 50 widths with 20 seeds each, as `train` leaves them but without artifacts."""
    from mlflow.entities import Metric, Param

    from mnist_pipeline.reports.compare import METRICS
    from mnist_pipeline.tracking.mlflow_store import MlflowStore

    uri = store.sqlite_uri(Path(home) / "mlruns" / "mlflow.db")
    config = compose.compose([f"tracking.uri={uri}"])
    opened = MlflowStore(config.tracking)
    experiment_id = opened.require_experiment(config.tracking.experiment)
    chance = random.Random(0)
    for number in range(NUM_RUNS):
        width, seed = 16 + number // NUM_SEEDS, number % NUM_SEEDS
        params = {**config.flat(), "model.hidden_width": width, "train.seed": seed}
        tags = {"kind": "train", "data.digest": "d" * 64, "fingerprint": f"{number:064}", "git.dirty": "false"}
        run_id = opened.client.create_run(experiment_id, run_name=f"w{width}-s{seed}", tags=tags).info.run_id
        opened.client.log_batch(
            run_id,
            metrics=[Metric(key, 0.9 + 0.1 * chance.random(), 1, 9) for key in METRICS],
            params=[Param(key, str(value)) for key, value in params.items()],
        )
        opened.client.set_terminated(run_id, "FINISHED")


def measure_compare() -> Iterator[Row]:
    """Measure `compare` over a thousand runs, and take away what its imports take."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run(python("-c", f"from benchmarks import reports; reports.fill({folder!r})"), home=home)
        pairs = []
        for _ in range(6):
            ours = run([*PIPELINE, "compare"], home=home)
            assert "and 980 more" in ours.output
            pairs.append((ours.seconds, run(python("-c", _IMPORTS), home=home).seconds))
    seconds, imports = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    beyond = statistics.median(ours - imported for ours, imported in pairs[1:])
    yield Row(
        "`mnist-pipeline compare` of 1,000 runs, 50 widths with 20 seeds each, beyond its imports",
        f"{beyond:.1f} s ({seconds:.1f} s against {imports:.1f} s)",
        "at most 3 s",
    )
