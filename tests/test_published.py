"""Fashion-MNIST and KMNIST: found and downloaded as MNIST is, and known by the digests of their files."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import own_data
import pytest
from conftest import DEAD_ADDRESS
from test_mnist import serve

from mnist_pipeline.config import compose
from mnist_pipeline.data import catalogue, fashion_mnist, kmnist
from mnist_pipeline.data.dataset import DataUnavailableError, Found
from mnist_pipeline.data.published import IDX_NAMES


@pytest.fixture(params=["fashion_mnist", "kmnist"])
def option(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small files in the place of the real ones, which are known by their digests alone."""
    option = str(request.param)
    module = {"fashion_mnist": fashion_mnist, "kmnist": kmnist}[option]
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files().items()}
    assert digests.keys() == module.DIGESTS.keys()
    monkeypatch.setattr(module, "DIGESTS", digests)
    return option


def files() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (60, 28, 28), np.uint8),
        "y_train": np.arange(60, dtype=np.uint8) % 10,
        "x_test": random.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": np.arange(20, dtype=np.uint8) % 10,
    }
    return {f"{name}.gz": gzip.compress(own_data.idx_bytes(arrays[key]), mtime=0) for key, name in IDX_NAMES.items()}


def find(option: str, *, url: str = DEAD_ADDRESS) -> Found:
    second = [f"data.second_url={url}"] if option == "fashion_mnist" else []
    overrides = [f"data={option}", f"data.url={url}", *second, "data.num_retries=0", "data.timeout_sec=1"]
    return catalogue.find(compose.compose(overrides).data)


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)
    return folder


def test_it_has_its_class_names(option: str, home: Path) -> None:
    write(home / "data" / option)
    found = find(option)
    assert found.name == option
    assert len(found.class_names) == 10
    assert ("Ankle boot" in found.class_names) == (option == "fashion_mnist")
    assert found.learn.images.shape == (60, 28, 28)


def test_it_is_found_where_torchvision_and_people_keep_it(
    option: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_PIPELINE_DATA_DIR", str(tmp_path / "sets"))
    folder = write(tmp_path / "sets" / {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[option] / "raw")
    assert find(option).attempts[-1].source == f"MNIST_PIPELINE_DATA_DIR ({tmp_path}/sets)"
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(b"of another data set"))
    with pytest.raises(DataUnavailableError) as caught:
        find(option)
    assert labels.exists()
    assert "SHA-256" in caught.value.attempts[0].outcome


def test_it_is_downloaded_and_kept(option: str, home: Path) -> None:
    with serve({f"/{name}": content for name, content in files().items()}) as address:
        found = find(option, url=address)
    assert len(found.learn) == 60
    assert sorted(path.name for path in (home / "data" / option).iterdir()) == sorted(files())
    assert find(option).digest == found.digest  # from the disk
    with serve({f"/{name}": content[:-9] for name, content in files().items()}) as address:
        for path in (home / "data" / option).iterdir():
            path.unlink()
        with pytest.raises(DataUnavailableError):
            find(option, url=address)
    assert list((home / "data" / option).iterdir()) == []
