"""Train runs on a server, each write to which may be lost, and print how many were and how many runs differ.

`python -m benchmarks.lossy_runs ADDRESS NUM_RUNS`
"""

import random
import sys
from collections.abc import Callable
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.entities import Run

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.pipeline import run
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import integrity, outbox
from mnist_pipeline.tracking.mlflow_run import MlflowRun
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.mlflow_tracker import MlflowTracker

WRITES = ("log_metrics", "set_tags", "log_input", "log_artifacts", "upload_model", "log_files", "end")
SHARE = 0.3
"""Of the writes that are lost: half of them before the server has got them, half of them after."""


def main() -> None:
    """Train, and compare every run with the first, of which nothing is lost."""
    address, num_runs = sys.argv[1], int(sys.argv[2])
    chance = random.Random(0)
    lost: list[str] = []
    outbox.PROBE_PAUSE_SEC = 0.0

    def lossy(name: str) -> Callable[..., None]:
        original: Callable[..., None] = getattr(MlflowRun, name)

        def write(self: MlflowRun, *arguments: Any, **named: Any) -> None:
            drawn = chance.random()
            if drawn >= SHARE / 2:
                original(self, *arguments, **named)
            if drawn < SHARE:
                lost.append(name)
                raise requests.ConnectionError("lost")

        return write

    kept = {name: getattr(MlflowRun, name) for name in WRITES}
    train(address)
    for name in WRITES:
        setattr(MlflowRun, name, lossy(name))
    for _ in range(num_runs):
        train(address)
    for name, original in kept.items():
        setattr(MlflowRun, name, original)
    client = MlflowClient(address)
    store = MlflowStore(TrackingConfig(uri=Address(address), experiment="digits"))
    found = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    assert len(found) == num_runs + 1
    states = [describe(client, store, one) for one in found]
    print(len(lost), sum(state != states[0] for state in states))


def train(address: str) -> None:
    """Train once more."""
    overrides = ["data=digits", "train.num_epochs=5", "force=true", f"tracking.uri={address}"]
    asked = prepare(compose.compose(overrides), overrides)
    run.execute(asked, MlflowTracker(asked.config.tracking))


def describe(client: MlflowClient, store: MlflowStore, one: Run) -> tuple[Any, ...]:
    """Return everything of a run on the server that must be the same for all of them."""
    run_id = one.info.run_id
    models = client.search_logged_models(["1"], filter_string=f"source_run_id = '{run_id}'")
    names = [key for key in one.data.metrics if not key.startswith("time/")]
    return (
        one.info.status,
        one.data.params,
        one.data.tags["result.digest"],
        [(key, [(point.step, point.value) for point in client.get_metric_history(run_id, key)]) for key in names],
        [model.status.value for model in models],
        integrity.find_damage(store, run_id),
    )


if __name__ == "__main__":
    main()
