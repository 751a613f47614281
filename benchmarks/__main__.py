"""Measure everything that docs/benchmarks.md holds: `make bench`, or `make bench ARGS="--only startup"`.

Every figure is a ratio within one run: what is compared takes turns, so that the machine's own drift meets both.
"""

import argparse
import contextlib
import json
import math
import os
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scipy.stats import t as student_t

from benchmarks.champion import measure_predict, measure_promotion, measure_serve
from benchmarks.cluster import measure_cluster
from benchmarks.data import measure_data
from benchmarks.measuring import PIPELINE, ROOT, Row, describe_speed, in_turns, python, run
from benchmarks.models import measure_conv_accuracy, measure_models
from benchmarks.photos import measure_photos
from benchmarks.reports import measure_stores
from benchmarks.trust import measure_outages, measure_reproduction, measure_surroundings

PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- bench -->\n", "<!-- /bench -->")
NUM_KILLS = 30
NUM_FIRST_PAIRS = 5
NUM_SEEDS = 30  # ten leave the interval about as wide as the bound


def measure_training() -> Iterator[Row]:
    """Compare the training alone with Keras's fit, tracing included."""
    ours, theirs = (python("-m", "benchmarks.fit_once", way, "0") for way in ("compiled", "keras"))
    pairs = [
        (float(one.output.split()[0]), float(other.output.split()[0])) for one, other in in_turns(ours, theirs, times=3)
    ]
    yield Row(
        "training, 9 epochs of 60,000 images, against Keras `fit` with its defaults",
        describe_speed(pairs),
        "at least 7 times",
    )


def measure_process() -> Iterator[Row]:
    """Compare the whole tracked run, with a new store, with the bare script."""
    pairs = in_turns([*PIPELINE, "train", "preset=tutorial"], python("-m", "benchmarks.bare_script"), times=3)
    ours, bare = ([child.seconds for child in column] for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    yield Row(
        "`make train` with `preset=tutorial`, tracked, new store, against the bare script",
        f"{ratio:.2f} of its time ({statistics.median(ours):.1f} s against {statistics.median(bare):.1f} s)",
        "at most 0.25",
    )
    peak = max(ours.peak_bytes for ours, _ in pairs)
    yield Row("peak memory of that run's process", f"{peak / 1e9:.2f} GB", "at most 1.2 GB")


def measure_startup() -> Iterator[Row]:
    """Compare what only reads configuration with the import of TensorFlow."""
    for what, arguments, ok in (
        ("`mnist-pipeline --help`", ["--help"], (0,)),
        ("`mnist-pipeline train --help`", ["train", "--help"], (0,)),
        ("`mnist-pipeline train --cfg job`", ["train", "--cfg", "job"], (0,)),
        ("a configuration error", ["train", "model.hidden_width=-1"], (2,)),
    ):
        pairs = [(run([*PIPELINE, *arguments], ok=ok), run(python("-c", "import tensorflow"))) for _ in range(6)][1:]
        ratio = statistics.median(ours.seconds / heavy.seconds for ours, heavy in pairs)
        seconds = statistics.median(ours.seconds for ours, _ in pairs)
        yield Row(f"{what}, against `import tensorflow`", f"{ratio:.3f} of its time ({seconds:.2f} s)", "at most 0.125")


def measure_shares() -> Iterator[Row]:
    """Measure the shares of the training time that the logging of the epochs and the checkpoints take."""
    for what, method, bound in (
        ("logging of the epochs", "mlflow_run.MlflowRun.log_metrics", 5),
        ("checkpoints after every epoch", "checkpoints.Checkpoints.save", 3),
    ):
        code = (
            "import time; from mnist_pipeline.config import compose\n"
            "from mnist_pipeline.tracking import mlflow_run, mlflow_tracker\n"
            "from mnist_pipeline.pipeline import checkpoints, request, run\n"
            f"spent = 0.0; original = {method}\n"
            "def timed(self, *arguments, **named):\n"
            "    global spent; start = time.perf_counter(); original(self, *arguments, **named)\n"
            "    spent += time.perf_counter() - start\n"
            f"{method} = timed\n"
            "composed = compose.compose([]); asked = request.prepare(composed, [])\n"
            "result = run.execute(asked, mlflow_tracker.MlflowTracker(composed.tracking))\n"
            "print(spent / result.metrics['time/train_sec'])"
        )
        share = statistics.median(float(run(python("-c", code)).output.split()[-1]) for _ in range(3))
        yield Row(f"{what}, of the training time", f"{share:.1%}", f"at most {bound} %")


def measure_kills() -> Iterator[Row]:
    """Kill -9 the default run at random times, call it again until it is done, and compare the results."""
    chance = random.Random(0)
    num_kills, digests = 0, list[str]()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "MNIST_PIPELINE_HOME": home}
        while num_kills < NUM_KILLS:
            child = subprocess.Popen(
                [*PIPELINE, "train", "force=true"],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            try:
                # The first run is left alone: what the others are compared with.
                output, _ = child.communicate(timeout=chance.uniform(1, 14) if digests else None)
                digests += re.findall(r"^result digest +(\w+)$", output, re.MULTILINE)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                num_kills += 1
        num_different = sum(digest != digests[0] for digest in digests)
    yield Row(
        f"kill -9 of `make train` at random times, {NUM_KILLS} in all, and the same command again",
        f"{len(digests) - 1} runs finished, {num_different} differ from the uninterrupted one by any bit",
        "0 differ",
    )


def measure_equality() -> Iterator[Row]:
    """Compare test accuracies with those of Keras's fit, over the same seeds (Welch's interval)."""

    def accuracy(way: str, seed: int) -> float:
        return float(run(python("-m", "benchmarks.fit_once", way, str(seed))).output.split()[1])

    with ThreadPoolExecutor(max_workers=2) as pool:  # nothing is timed here
        pending = [[pool.submit(accuracy, way, seed) for seed in range(NUM_SEEDS)] for way in ("compiled", "keras")]
        ours, theirs = ([future.result() for future in column] for column in pending)
    squared_errors = [statistics.variance(column) / NUM_SEEDS for column in (ours, theirs)]
    freedom = sum(squared_errors) ** 2 / sum(error**2 / (NUM_SEEDS - 1) for error in squared_errors)
    half = float(student_t.ppf(0.975, freedom)) * sum(squared_errors) ** 0.5
    difference = statistics.mean(ours) - statistics.mean(theirs)
    yield Row(
        f"test accuracy less that of Keras `fit`, {NUM_SEEDS} seeds each, 95 % interval",
        f"{100 * (difference - half):+.3f} to {100 * (difference + half):+.3f} points "
        f"(means {statistics.mean(ours):.4f} and {statistics.mean(theirs):.4f})",
        "within ±0.15 points",
    )


def draw_configurations(num: int) -> list[dict[str, float]]:
    """Return configurations from the default sweep's space, always the same."""
    chance = random.Random(0)
    return [
        {
            "model.hidden_width": round(math.exp(chance.uniform(math.log(16), math.log(512)))),
            "model.dropout_rate": round(0.05 * chance.randint(0, 12), 2),
            "train.num_epochs": chance.randint(3, 15),
        }
        for _ in range(num)
    ]


def measure_sweep() -> Iterator[Row]:
    """Compare a fixed list of trials with the same list as it is run by hand, of which two of every five are scaled."""
    listed = draw_configurations(20)
    part = [one for index, one in enumerate(listed) if index % 5 in (1, 3)]  # as wide, on average, as all of them
    settings = ["sweep.num_trials=20", "sweep.num_workers=2", "sweep.pruner=none", "sweep.confirm=null"]
    ours = run(python("-m", "benchmarks.sweep_once", json.dumps(listed), *settings)).seconds
    with tempfile.TemporaryDirectory() as folder:
        theirs = run(python("-m", "benchmarks.sweep_by_hand", json.dumps(part), folder))
    in_trials = float(theirs.output.split()[0])
    epochs, epochs_of_part = (sum(one["train.num_epochs"] for one in chosen) for chosen in (listed, part))
    scaled = theirs.seconds - in_trials + in_trials * epochs / epochs_of_part
    yield Row(
        f"20 trials of the default space, {epochs:.0f} epochs, 2 workers, no pruning, against the same by hand (Optuna "
        f"`optimize`, Keras `fit`, `log_model`; {len(part)} of them, scaled by their epochs)",
        f"{scaled / ours:.1f} times faster ({ours:.0f} s against {scaled:.0f} s)",
        "at least 12 times",
    )


def measure_sweep_default() -> Iterator[Row]:
    """Time the default sweep, with pruning and confirmation."""
    with tempfile.TemporaryDirectory() as home:
        child = run([*PIPELINE, "sweep"], home=Path(home))
        with contextlib.closing(sqlite3.connect(Path(home, "mlruns", "mlflow.db"))) as store:
            confirmed = list(store.execute("SELECT name, end_time FROM runs WHERE name LIKE 'confirm %'"))
    numbers = {int(name.rpartition("#")[2]): end for name, end in sorted(confirmed, key=lambda row: row[1])}
    best = re.findall(r"^ +\d+ +([\d.]{6}) ", child.output, re.MULTILINE)[0]  # the first row of the table
    counts = re.findall(r"^trials +(.*)$", child.output, re.MULTILINE)[0]
    beyond = (max(numbers.values()) - numbers[NUM_FIRST_PAIRS]) / 1000
    yield Row(
        "`make sweep`, the default: 40 trials, confirmation, the winner's training and test",
        f"{child.seconds:.0f} s ({counts}; best validation accuracy {best}; {max(numbers)} pairs of seeds, of which "
        f"those after the first {NUM_FIRST_PAIRS} took {beyond:.0f} s)",
        "283 s with 5 pairs",
    )


def measure_scale() -> Iterator[Row]:
    """Run 1,000 short trials of the same size, and look at what they take besides training, and at memory."""
    swept = [
        "~sweep.space.model",
        "~sweep.space.train.num_epochs",
        "+sweep.space.train.seed={type:int,low:0,high:1000000}",
    ]
    settings = ["preset=smoke", *swept, "sweep.num_trials=1000", "sweep.num_workers=2", "sweep.pruner=none"]
    found = json.loads(run(python("-m", "benchmarks.sweep_once", "[]", *settings, "sweep.confirm=null")).output)
    ended = sorted(found["ended"])
    outside = 2 * (ended[-1] - ended[-201]) / 200 - sum(found["epoch_sec"]) / len(ended)
    # The first ten are left out: the workers are still being started.
    first, last = ended[59] - ended[9], ended[-1] - ended[-51]
    yield Row(
        "time of a trial outside training and tracing, the last 200 of 1,000 trials of `preset=smoke`, 2 workers",
        f"{outside:.2f} s",
        "at most 0.3 s",
    )
    yield Row(
        "the same, last 50 trials of 1,000 against the first 50: time, memory",
        f"{last / first:.2f}, {found['bytes'][-1] / found['bytes'][4]:.2f}",
        "at most 1.1",
    )
    yield Row(
        "memory of 2 workers, the process they are forked from, and the sweep's own (PSS)",
        f"{max(found['bytes']) / 1e9:.2f} GB",
        "at most 2.5 GB",
    )


MEASUREMENTS: dict[str, Callable[[], Iterator[Row]]] = {
    "training": measure_training,
    "models": measure_models,
    "conv-accuracy": measure_conv_accuracy,
    "process": measure_process,
    "startup": measure_startup,
    "shares": measure_shares,
    "kills": measure_kills,
    "scale": measure_scale,
    "sweep": measure_sweep,
    "sweep-default": measure_sweep_default,
    "equality": measure_equality,
    "promotion": measure_promotion,
    "predict": measure_predict,
    "serve": measure_serve,
    "stores": measure_stores,
    "data": measure_data,
    "photos": measure_photos,
    "cluster": measure_cluster,
    "reproduction": measure_reproduction,
    "outages": measure_outages,
    "surroundings": measure_surroundings,
}


def write_page(rows: list[Row]) -> None:
    """Replace the rows of the table in docs/benchmarks.md that were measured anew, and add those it lacks."""
    text = PAGE.read_text()
    before, rest = text.split(MARKS[0])
    table, after = rest.split(MARKS[1])
    kept = {line.split("|")[1].strip(): line for line in table.splitlines()[2:] if line.strip()}
    kept.update({row.what: str(row) for row in rows})
    lines = ["| what | measured | wanted |", "| --- | --- | --- |", *kept.values()]
    PAGE.write_text(f"{before}{MARKS[0]}" + "\n".join(lines) + f"\n{MARKS[1]}{after}")


def main() -> None:
    """Measure, print, and write into the page where asked to."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="measure this alone; may be repeated")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    parsed = parser.parse_args()
    if not (Path(os.environ.get("MNIST_PIPELINE_DATA_DIR", "")) / "mnist.npz").is_file():
        raise SystemExit("error: the benchmarks need the real MNIST: set MNIST_PIPELINE_DATA_DIR to its folder")
    rows: list[Row] = []
    for name in parsed.only or MEASUREMENTS:
        for row in MEASUREMENTS[name]():
            print(re.sub(r"[`|]", "", str(row)).strip(), flush=True)
            rows.append(row)
    if parsed.write:
        write_page(rows)


if __name__ == "__main__":
    main()
