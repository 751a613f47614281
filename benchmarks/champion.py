"""What the registry and the champion take."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import PIPELINE, Row, python, run

NUM_REQUESTS = 2000


@contextlib.contextmanager
def home_with_runs() -> Iterator[Path]:
    """Yield a home with a weak run, which is the champion, and the default one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for overrides in (["model.hidden_width=16", "train.num_epochs=1"], []):
            run([*PIPELINE, "train", *overrides], home=home)
        run([*PIPELINE, "promote", "mnist-dense-w16-e1-s0"], home=home)
        yield home


def measure_promotion() -> Iterator[Row]:
    """Compare the promotion of a finished run against a champion with the import of what it needs."""
    with home_with_runs() as home:
        database = home / "mlruns" / "mlflow.db"
        before = shutil.copy(database, home / "before.db")
        pairs = []
        for _ in range(6):
            shutil.copy(before, database)
            ours = run([*PIPELINE, "promote"], home=home)
            pairs.append((ours.seconds, run(python("-c", "import tensorflow, mlflow")).seconds))
            assert "promoted: version 2" in ours.output
    ratio = statistics.median(ours / heavy for ours, heavy in pairs[1:])
    seconds, imports = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    yield Row(
        "`mnist-pipeline promote` of a run on MNIST, all gates, against `import tensorflow, mlflow`",
        f"{ratio:.2f} times ({seconds:.1f} s against {imports:.1f} s)",
        "at most 2 times",
    )


def measure_predict() -> Iterator[Row]:
    """Measure predictions of arrays once the champion is loaded: file to file."""
    with home_with_runs() as home:
        found = [float(run(python("-m", "benchmarks.predict_once"), home=home).output) for _ in range(3)]
    yield Row(
        "`mnist-pipeline predict` of an NPZ file of 60,000 images into Parquet, after loading",
        f"{statistics.median(found):,.0f} images/s",
        "at least 20,000",
    )


def measure_serve() -> Iterator[Row]:
    """Measure requests of one image each, the clients being on the same machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with home_with_runs() as home:
        command = ["env", f"MNIST_PIPELINE_HOME={home}", *PIPELINE, "serve", "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()
            measured = []
            for num_clients in (1, 8):
                ask(port, num_clients=num_clients)  # a warm-up
                rate, slowest_ms = ask(port, num_clients=num_clients)
                measured.append(f"{num_clients}: {rate:.0f} requests/s, p99 {slowest_ms:.1f} ms")
            server.send_signal(signal.SIGINT)
    yield Row("`make serve`, one image a request, by the number of clients", "; ".join(measured), "reported")


def ask(port: int, *, num_clients: int) -> tuple[float, float]:
    """Return the requests per second and the 99th percentile in milliseconds."""
    body = json.dumps({"inputs": [[[0] * 28] * 28]})
    seconds: list[float] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(NUM_REQUESTS // num_clients):
            start = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            seconds.append(time.perf_counter() - start)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(num_clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(seconds) / (time.perf_counter() - start), 1000 * sorted(seconds)[int(0.99 * len(seconds))]
