import gzip
import hashlib
import http.server
import io
import logging
import pickle
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import DEAD_ADDRESS

from mnist_pipeline.config import compose
from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.data import mnist, published
from mnist_pipeline.data.dataset import Attempt, DataUnavailableError
from mnist_pipeline.data.published import Arrays


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """Small arrays in the place of MNIST's: the code knows the real ones by their digests alone."""
    random = np.random.default_rng(0)
    made = {
        "x_train": random.integers(0, 256, (60, 28, 28), np.uint8),
        "y_train": random.integers(0, 10, 60, np.uint8),
        "x_test": random.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": random.integers(0, 10, 20, np.uint8),
    }
    monkeypatch.setattr(
        mnist, "DIGESTS", {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in made.items()}
    )
    monkeypatch.setattr(mnist, "SHAPES", {name: array.shape for name, array in made.items()})
    return made


def npz_bytes(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(arrays: Arrays, folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in published.IDX_NAMES.items():
        content = idx_bytes(arrays[name])
        (folder / (f"{file}.gz" if zipped else file)).write_bytes(gzip.compress(content) if zipped else content)


def make_config(*overrides: str) -> DataConfig:
    return compose.compose(
        [
            "data=mnist",
            f"data.npz_url={DEAD_ADDRESS}/mnist.npz",
            f"data.idx_url={DEAD_ADDRESS}/idx",
            "data.num_retries=0",
            "data.timeout_sec=1",
            *overrides,
        ]
    ).data


def find(config: DataConfig) -> tuple[Arrays, Sequence[Attempt]]:
    found = mnist.load(**config.arguments)
    assert isinstance(found.images, dict)
    assert isinstance(found.labels, dict)
    x, y = found.images, found.labels
    return {"x_train": x["train"], "y_train": y["train"], "x_test": x["test"], "y_test": y["test"]}, found.attempts


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("form", ["npz", "idx", "idx.gz"])
def test_both_forms_are_read_from_disk(
    form: str, arrays: Arrays, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    if form == "npz":
        own.mkdir()
        (own / "mnist.npz").write_bytes(npz_bytes(arrays))
    else:
        write_idx(arrays, own, zipped=form == "idx.gz")
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(own))
    found, attempts = find(make_config())
    assert_same(found, arrays)
    assert [attempt.outcome for attempt in attempts] == ["found"]
    assert str(own) in attempts[0].source


def write_kaggle(arrays: Arrays, folder: Path) -> None:
    write_idx(arrays, folder, zipped=False)
    for file in list(folder.iterdir()):
        place = folder / file.name.replace(".idx", "-idx")
        content = file.read_bytes()
        file.unlink()
        place.mkdir()
        (place / file.name).write_bytes(content)


@pytest.mark.parametrize("form", ["unpacked", "torchvision", "raw", "kaggle", "goes on", "goes on zipped"])
def test_it_is_found_as_people_keep_it(
    form: str,
    arrays: Arrays,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = tmp_path / "own"
    match form:
        case "unpacked":
            write_idx(arrays, own, zipped=False)
            for file in list(own.iterdir()):
                file.rename(file.with_name(f"{file.name}.gz"))
        case "torchvision":
            write_idx(arrays, own / "MNIST" / "raw", zipped=False)
        case "raw":
            write_idx(arrays, own / "raw", zipped=True)
        case "kaggle":
            write_kaggle(arrays, own)
        case _:
            write_idx(arrays, own, zipped=form == "goes on zipped")
            for file in own.iterdir():
                file.write_bytes(file.read_bytes() + b"more")
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(own))
    found, _ = find(make_config())
    assert_same(found, arrays)
    assert len(caplog.records) == (4 if form.startswith("goes on") else 0)


def test_the_sources_are_asked_in_order(arrays: Arrays, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras_home = home / "keras"
    write_idx(arrays, keras_home / "datasets", zipped=True)
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(home / "nowhere"))
    _, attempts = find(make_config())
    assert [attempt.outcome for attempt in attempts] == ["not there", "not there", "found"]
    (home / "data").mkdir()
    (home / "data" / "mnist.npz").write_bytes(npz_bytes(arrays))
    _, attempts = find(make_config())
    assert [attempt.outcome for attempt in attempts] == ["not there", "found"]


def damage(arrays: Arrays) -> dict[str, bytes]:
    whole = npz_bytes(arrays)
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    other = {**arrays, "x_test": arrays["x_test"].reshape(40, 14, 28)}
    newer = bytearray(whole)
    newer[newer.index(b"PK\x01\x02") + 6] ^= 0x40  # asks for a version of ZIP that does not exist yet
    pickled = io.BytesIO()
    np.savez(pickled, x_train=np.array([{"a": 1}], dtype=object))
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "flipped bit": bytes(flipped),
        "unknown version": bytes(newer),
        "wrong shape": npz_bytes(other),
        "missing array": npz_bytes({"x_train": arrays["x_train"]}),
        "pickled array": pickled.getvalue(),
        "pickle": pickle.dumps(Bomb()),
        "plain array": npy_bytes(arrays["x_train"]),
        "page": b"<html>moved</html>",
    }


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("kind", [*damage({name: np.zeros((20, 28, 28), np.uint8) for name in mnist.DIGESTS})])
def test_a_damaged_cache_is_renamed(kind: str, arrays: Arrays, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = damage(arrays)[kind]
    cache = home / "data" / "mnist.npz"
    cache.parent.mkdir()
    cache.write_bytes(content)
    with (
        caplog.at_level(logging.WARNING, "mnist_pipeline"),
        serve({"/mnist.npz": npz_bytes(arrays)}) as address,
    ):
        found, _ = find(make_config(f"data.npz_url={address}/mnist.npz"))
    assert_same(found, arrays)
    assert "damaged data" in caplog.text
    assert cache.with_name("mnist.npz.damaged-1").read_bytes() == content
    assert cache.read_bytes() == npz_bytes(arrays)


def test_only_the_damaged_idx_file_is_renamed(arrays: Arrays, home: Path) -> None:
    folder = home / "data"
    write_idx(arrays, folder, zipped=False)
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(DataUnavailableError):
        find(make_config())
    assert sorted(path.name for path in folder.iterdir()) == [
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.damaged-1",
    ]


def test_the_users_own_folder_is_never_changed(
    arrays: Arrays, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mnist.npz").write_bytes(b"damaged")
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(own))
    with pytest.raises(DataUnavailableError) as caught:
        find(make_config())
    assert [path.name for path in own.iterdir()] == ["mnist.npz"]
    assert "cannot be read" in caught.value.attempts[0].outcome


@contextmanager
def serve(files: dict[str, bytes], *, stall: bool = False, cut: bool = False) -> Iterator[str]:
    """A mirror on this machine. It may stall after the headers, or cut the connection half-way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if stall:
                time.sleep(3)
            self.wfile.write(content[: len(content) // 2] if cut else content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def idx_mirror(arrays: Arrays) -> dict[str, bytes]:
    return {f"/idx/{file}.gz": gzip.compress(idx_bytes(arrays[name])) for name, file in published.IDX_NAMES.items()}


def test_a_good_mirror(arrays: Arrays, home: Path) -> None:
    with serve({"/some.npz": npz_bytes(arrays)}) as address:
        found, attempts = find(make_config(f"data.npz_url={address}/some.npz"))
    assert_same(found, arrays)
    assert attempts[-1].source == f"{address}/some.npz"
    assert [path.name for path in (home / "data").iterdir()] == ["mnist.npz"]
    _, attempts = find(make_config())
    assert attempts[-1].source == str(home / "data")


def test_the_second_mirror_helps_out(arrays: Arrays, home: Path) -> None:
    with serve(idx_mirror(arrays)) as address:
        found, attempts = find(make_config(f"data.npz_url={address}/gone.npz", f"data.idx_url={address}/idx"))
    assert_same(found, arrays)
    assert "404" in attempts[-2].outcome
    assert len(list((home / "data").iterdir())) == 4
    found, _ = find(make_config())
    assert_same(found, arrays)


@pytest.mark.parametrize("mirror", ["dead", "lying", "slow", "cut", "incomplete"])
def test_a_bad_mirror_leaves_nothing_behind(mirror: str, arrays: Arrays, home: Path) -> None:
    whole = npz_bytes(arrays)
    other = npz_bytes({**arrays, "y_test": arrays["y_test"][::-1].copy()})
    files = {"/mnist.npz": other if mirror == "lying" else whole}
    if mirror == "incomplete":
        files = dict(list(idx_mirror(arrays).items())[:3])
    with serve(files, stall=mirror == "slow", cut=mirror == "cut") as address:
        chosen = {
            "dead": (),
            "incomplete": (f"data.idx_url={address}/idx",),
        }.get(mirror, (f"data.npz_url={address}/mnist.npz",))
        with pytest.raises(DataUnavailableError) as caught:
            find(make_config(*chosen))
    assert list((home / "data").iterdir()) == []
    assert "put mnist.npz or the four IDX files into a folder and set MNIST_PIPELINE_DATA_DIR" in str(caught.value)
    assert "\n" not in str(caught.value)
    if mirror == "lying":
        assert "not MNIST's" in caught.value.attempts[-2].outcome


def test_a_download_is_tried_again(arrays: Arrays, home: Path) -> None:
    requests: list[str] = []

    class Flaky(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            if len(requests) == 1:
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(npz_bytes(arrays))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chosen = make_config(f"data.npz_url=http://127.0.0.1:{server.server_port}/mnist.npz", "data.num_retries=1")
        found, _ = find(chosen)
        server.shutdown()
    assert_same(found, arrays)
    assert len(requests) == 2


def test_an_unwritable_data_folder_is_one_more_reason(arrays: Arrays, home: Path) -> None:
    (home / "data").write_text("a file where the folder should be")
    with serve({"/mnist.npz": npz_bytes(arrays)}) as address, pytest.raises(DataUnavailableError) as caught:
        find(make_config(f"data.npz_url={address}/mnist.npz"))
    assert "exists" in str(caught.value)


def test_the_real_mnist(mnist_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(mnist_dir))
    found, _ = find(make_config())
    assert found["x_train"].shape == (60000, 28, 28)
    assert found["y_test"][:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
