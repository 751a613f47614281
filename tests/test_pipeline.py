import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from conftest import NO_MIRRORS, ROOT
from memory_tracker import MemoryRun, MemoryTracker
from omegaconf import OmegaConf

from mnist_pipeline.config import compose
from mnist_pipeline.data.dataset import DataUnavailableError
from mnist_pipeline.model.catalogue import build
from mnist_pipeline.model.score import Score
from mnist_pipeline.pipeline.request import prepare
from mnist_pipeline.pipeline.run import RunResult, execute
from mnist_pipeline.pipeline.stages import log_checked_model
from mnist_pipeline.tracking.tracker import Predict
from mnist_pipeline.train.epochs import Epoch
from mnist_pipeline.train.fit import LossNotFiniteError

SMOKE = ["preset=smoke"]


def run(overrides: Sequence[str]) -> tuple[RunResult, MemoryRun]:
    tracker = MemoryTracker()
    result = execute(prepare(compose.compose(overrides), overrides), tracker)
    (tracked,) = tracker.runs
    return result, tracked


@pytest.fixture(scope="module")
def smoke() -> tuple[RunResult, MemoryRun]:
    return run(SMOKE)


def test_the_steps_of_a_run_are_in_order(smoke: tuple[RunResult, MemoryRun]) -> None:
    """What is drawn aside is in an order of its own, within the step beside which it is drawn."""
    _, tracked = smoke
    aside = {"beginning": ["config", "environment", "data"], "scores": ["train", "evaluate"]}
    in_step = [event for event in tracked.events if event not in (*aside["beginning"], *aside["scores"])]
    assert in_step == ["model", "metrics 1", "metrics 2", "metrics 2", "logged model", "files", "metrics 2"]
    for events in aside.values():
        assert [event for event in tracked.events if event in events] == events
    end_of_training = max(tracked.events.index("metrics 2"), tracked.events.index("data"))
    assert end_of_training < tracked.events.index("train")
    assert tracked.events.index("evaluate") < tracked.events.index("files")
    assert tracked.status == "FINISHED"


def test_params_are_the_dotted_keys(smoke: tuple[RunResult, MemoryRun]) -> None:
    _, tracked = smoke
    assert tracked.params == compose.compose(SMOKE).flat()
    assert tracked.params["model.hidden_width"] == 128


def test_every_metric_is_logged_once_per_epoch(smoke: tuple[RunResult, MemoryRun]) -> None:
    result, tracked = smoke
    names = {"train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "time/epoch_sec"}
    assert {key for key, step, _ in tracked.points if step == 1} == names
    assert {key for key, step, _ in tracked.points if step == 2} == names | {
        "test/loss", "test/accuracy", "test/calibration_error", "time/train_sec", "time/total_sec",
        "model/num_parameters",
    }  # fmt: skip
    assert result.metrics["test/accuracy"] == tracked.metrics["test/accuracy"] > 0.6


def test_the_artifacts_of_every_stage(smoke: tuple[RunResult, MemoryRun]) -> None:
    result, tracked = smoke
    assert sorted(set(tracked.artifacts) - {"environment/code.patch"}) == [  # that is there where the code has changes
        "config/config.yaml",
        "config/overrides.yaml",
        "data/class_counts.csv",
        "data/class_counts.png",
        "data/digests.json",
        "data/samples.png",
        "environment/identity.json",
        "environment/machine.json",
        "environment/versions.json",
        "evaluate/calibration.csv",
        "evaluate/confusion.csv",
        "evaluate/confusion.png",
        "evaluate/first_predictions.png",
        "evaluate/mistakes.json",
        "evaluate/mistakes.png",
        "evaluate/per_class.csv",
        "evaluate/per_class.json",
        "evaluate/predictions.parquet",
        "evaluate/reliability.png",
        "model/layers.csv",
        "model/summary.txt",
        "model/untrained.json",
        "train/history.csv",
        "train/learning_curves.png",
    ]
    predictions = pd.read_parquet(io.BytesIO(tracked.artifacts["evaluate/predictions.parquet"]))
    assert len(predictions) == len(result.request.dataset.test) == 360
    assert (predictions["label"] == predictions["predicted"]).mean() == result.metrics["test/accuracy"]
    logged = OmegaConf.to_container(OmegaConf.create(tracked.artifacts["config/config.yaml"].decode()))
    assert isinstance(logged, dict)
    assert compose.read_run({str(key): value for key, value in logged.items()}) == result.request.config
    assert OmegaConf.create(tracked.artifacts["config/overrides.yaml"].decode()) == SMOKE
    assert json.loads(tracked.artifacts["environment/versions.json"])["tensorflow"].count(".") == 2
    for name, content in tracked.artifacts.items():
        if name.endswith(".png"):
            assert matplotlib.image.imread(io.BytesIO(content)).std() > 0.02
    assert set(tracked.splits) == {"train", "validation", "test"}


def test_the_tags_say_where_data_and_code_came_from(smoke: tuple[RunResult, MemoryRun]) -> None:
    result, tracked = smoke
    assert tracked.tags["kind"] == "train"
    assert tracked.tags["data.requested"] == "digits"
    assert tracked.tags["data.sources"] == "scikit-learn: found"
    assert tracked.tags["data.digest"] == result.request.dataset.digest
    assert len(tracked.tags["fingerprint"]) == 64
    if (ROOT / ".git").exists():  # not in an archive of the sources
        assert set(tracked.tags) >= {"mlflow.source.git.commit", "git.dirty"}


def test_the_logged_model_is_the_trained_one(smoke: tuple[RunResult, MemoryRun]) -> None:
    result, tracked = smoke
    assert tracked.model is not None
    probabilities = np.asarray(tracked.model(result.request.dataset.test.images))
    np.testing.assert_allclose(probabilities, result.predictions.filter(like="probability_"), atol=1e-5)


def test_a_run_depends_on_nothing_that_ran_before(smoke: tuple[RunResult, MemoryRun]) -> None:
    first, _ = smoke
    again, _ = run(SMOKE)
    pd.testing.assert_frame_equal(first.predictions, again.predictions, check_exact=True)
    other, _ = run([*SMOKE, "train.seed=1"])
    assert not first.predictions.equals(other.predictions)


def test_without_validation_nothing_is_logged_of_it() -> None:
    result, tracked = run([*SMOKE, "data.validation_size=0", "train.num_epochs=1"])
    assert not [key for key in tracked.metrics if key.startswith("validation/")]
    assert set(tracked.splits) == {"train", "test"}
    assert "validation/loss" not in result.metrics


def test_a_diverging_run_is_marked_failed() -> None:
    tracker = MemoryTracker()
    overrides = [*SMOKE, "train.learning_rate=1e30"]
    with pytest.raises(LossNotFiniteError):
        execute(prepare(compose.compose(overrides), overrides), tracker)
    assert tracker.runs[0].status == "FAILED"


def test_a_logged_model_that_differs_is_a_failure(smoke: tuple[RunResult, MemoryRun]) -> None:
    result, _ = smoke
    epoch = Epoch(number=1, train=Score(0, 0), validation=None, train_sec=1, images_per_sec=1, ended_ms=0)
    untrained = build(result.request.config.model, image_shape=(28, 28), num_classes=10, seed=0)

    class Forgetful(MemoryRun):
        def log_model(self, model: keras.Model, **about: object) -> Predict:
            return lambda images: np.full((len(images), 10), 0.1, np.float32)

    with pytest.raises(RuntimeError, match="differ from the trained model's"):
        log_checked_model(untrained, result.request.dataset, Forgetful(), metrics={}, epoch=epoch)


def test_without_mnist_a_run_falls_back_to_digits_and_says_so(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    overrides = [*NO_MIRRORS, "data.split_seed=3", "data.validation_size=0", "train.num_epochs=1"]
    with caplog.at_level(logging.WARNING, "mnist_pipeline"):
        request = prepare(compose.compose(overrides), overrides)
    assert request.config.data.name == request.dataset.name == "digits"
    assert request.config.tracking.experiment == "digits"
    assert request.config.data.validation_size == 300
    assert request.config.train.num_epochs == 1
    assert request.tags["data.requested"] == "mnist"
    assert request.tags["data.fallback"] == "digits"
    assert "Connection refused" in request.tags["data.sources"]
    assert request.tags["data.sources"].endswith("scikit-learn: found")
    assert request.tags["data.dropped_overrides"] == " ".join(
        [*NO_MIRRORS, "data.split_seed=3", "data.validation_size=0"]
    )
    assert "FALLBACK: this run uses data=digits instead of data=mnist" in caplog.text
    assert "data.split_seed=3" in caplog.text
    assert request.overrides == tuple(overrides)


def test_a_fallback_drops_the_data_keys_of_a_preset(home: Path) -> None:
    overrides = ["preset=tutorial", *NO_MIRRORS]
    request = prepare(compose.compose(overrides), overrides)
    assert request.dataset.name == "digits"
    assert request.config.data == compose.compose(["data=digits"]).data


def test_without_a_fallback_it_fails_with_the_same_reason(home: Path) -> None:
    overrides = ["data.fallback=null", *NO_MIRRORS]
    with pytest.raises(DataUnavailableError, match=r"data=mnist is not available .*Connection refused"):
        prepare(compose.compose(overrides), overrides)
