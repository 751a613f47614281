"""Trials that sleep, by so many workers at once: ours, Optuna's own way, or Ray Tune's. Prints trials a second.

No core is used by the trainings, so what is measured is what drives them. `python -m benchmarks.growth_once WAY WORKERS
TRIALS ADDRESS DATABASE`; the address is that of a Ray cluster, the database a PostgreSQL URL.
"""

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_EPOCHS = 5
EPOCH_SEC = 0.5
CHECKPOINT = os.urandom(1_200_000)
"""As large as that of the baseline."""


def value_of(epoch: int) -> float:
    """Return the accuracy of an epoch."""
    return 0.9 + 0.01 * epoch + random.uniform(-0.02, 0.02)


class SleepTrainer:
    """An actor with the methods of `ray_actor.Trainer`, whose epochs sleep."""

    def __init__(self) -> None:
        self._epoch = 0

    def ping(self) -> None:
        """Show that it lives."""

    def load(self, found: Any) -> None:
        """Take the data."""

    def begin(self, config: Any, start: bytes | None) -> Any:
        """Start a training, and return its first epoch."""
        self._epoch = 0
        return self.step(True)

    def step(self, goes_on: bool) -> Any:
        """Return the next epoch."""
        from mnist_pipeline.tracking.record import EPOCH_METRICS, Point

        if not goes_on or self._epoch == NUM_EPOCHS:
            return None
        time.sleep(EPOCH_SEC)
        self._epoch += 1
        metrics = {**dict.fromkeys(EPOCH_METRICS, 0.5), "validation/accuracy": value_of(self._epoch)}
        return Point(self._epoch, metrics, time.time_ns() // 1_000_000), CHECKPOINT


def ours(num_workers: int, num_trials: int, address: str, database: str) -> float:
    """Let the sweep's own search drive them."""
    import ray

    from mnist_pipeline.executors.executor import Executor
    from mnist_pipeline.executors.pool import StopRequest
    from mnist_pipeline.executors.ray_worker import RayWorker
    from mnist_pipeline.pipeline.request import prepare
    from mnist_pipeline.sweep import settings
    from mnist_pipeline.sweep import sweep as story

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    trainer = ray.remote(SleepTrainer).options(num_cpus=0, max_concurrency=2)
    actors = [trainer.remote() for _ in range(num_workers)]
    ray.get([actor.ping.remote() for actor in actors])

    nowhere: Any = None

    class Places:
        def count(self) -> int:
            return num_workers

        def make(self, index: int) -> Executor:
            def start(goes_on: Callable[[], bool]) -> RayWorker:
                put: Callable[[Any], None] = lambda found: None  # noqa: E731
                return RayWorker(actors[index], nowhere, put=put, silence_sec=60, is_gone=lambda: False)

            return Executor(start, index=index, wait_sec=60)

        def close(self) -> None:
            pass

    class Silent:
        def __init__(self) -> None:
            self.began = self.ended = 0.0

        def begin(self, **about: Any) -> None:
            self.began = time.perf_counter()

        def wait(self, what: str | None) -> None:
            pass

        def train(self, executor: int, **about: Any) -> None:
            pass

        def finish(self, executor: int, **about: Any) -> None:
            self.ended = time.perf_counter()

    story.open_sweep_places = lambda *arguments: Places()
    overrides = [
        *("preset=smoke", f"sweep.num_trials={num_trials}", "sweep.confirm=null", "~sweep.space.train.num_epochs"),
        *(f"train.num_epochs={NUM_EPOCHS}", "sweep.study=growth"),
        *([f"sweep.storage={database}"] if database else []),
    ]
    base, config = settings.compose_sweep(overrides)
    progress, stop = Silent(), StopRequest()
    request = prepare(base, overrides)
    tracker = story.open_tracker(request, config, progress, stop)
    story.sweep(request, config, tracker, progress=progress, stop=stop)
    return num_trials / (progress.ended - progress.began)


def optuna_script(database: str, num_trials: int) -> None:
    """What Optuna's documentation lets each node run."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="growth",
        storage=database,
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
    )
    Path(os.environ["GROWTH_READY"], str(os.getpid())).touch()
    while not Path(os.environ["GROWTH_READY"], "go").exists():
        time.sleep(0.01)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_int("hidden_width", 16, 512, log=True)
        trial.suggest_float("dropout_rate", 0.0, 0.6, step=0.05)
        value = 0.0
        for epoch in range(1, NUM_EPOCHS + 1):
            time.sleep(EPOCH_SEC)
            value = value_of(epoch)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(num_trials, states=None)])


def optuna_way(num_workers: int, num_trials: int, address: str, database: str) -> float:
    """Let one process a worker ask the database."""
    import optuna

    optuna.create_study(study_name="growth", storage=database, direction="maximize")
    ready = Path(os.environ["MNIST_PIPELINE_HOME"]) / "ready"
    ready.mkdir()
    words = [sys.executable, "-m", "benchmarks.growth_once", "optuna-script", "0", str(num_trials), "", database]
    children = [subprocess.Popen(words, env={**os.environ, "GROWTH_READY": str(ready)}) for _ in range(num_workers)]
    while len(list(ready.iterdir())) < num_workers:
        time.sleep(0.05)
    began = time.perf_counter()
    (ready / "go").touch()
    for child in children:
        child.wait()
    num_done = len(optuna.load_study(study_name="growth", storage=database).trials)
    return num_done / (time.perf_counter() - began)


def tune_way(num_workers: int, num_trials: int, address: str, database: str) -> float:
    """Let Ray Tune drive them, with Optuna's sampler; it has no pruner of Optuna's."""
    import ray
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

    def train(config: dict[str, Any]) -> None:
        for epoch in range(1, NUM_EPOCHS + 1):
            time.sleep(EPOCH_SEC)
            tune.report({"accuracy": value_of(epoch)})

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 0.01}),
        param_space={"hidden_width": tune.lograndint(16, 512), "dropout_rate": tune.quniform(0, 0.6, 0.05)},
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(OptunaSearch(), max_concurrent=num_workers),
            metric="accuracy",
            mode="max",
            num_samples=num_trials,
        ),
        run_config=tune.RunConfig(storage_path=os.environ["MNIST_PIPELINE_HOME"], verbose=0),
    )
    began = time.perf_counter()
    tuner.fit()
    return num_trials / (time.perf_counter() - began)


def main() -> None:
    """Measure one way."""
    way, workers, trials, address, database = sys.argv[1:]
    if way == "optuna-script":
        optuna_script(database, int(trials))
        return
    drive = {"ours": ours, "optuna": optuna_way, "tune": tune_way}[way]
    print(json.dumps({"trials_per_sec": drive(int(workers), int(trials), address, database)}))


if __name__ == "__main__":
    main()
