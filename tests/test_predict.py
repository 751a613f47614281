import contextlib
import errno
import os
import resource
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Cli, digits_arrays
from mlflow import MlflowClient
from PIL import Image

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.data.pictures import Invert, fit_digit, read_grey
from mnist_pipeline.data.published import Arrays
from mnist_pipeline.serving import champion, predict
from mnist_pipeline.serving.champion import Champion
from mnist_pipeline.serving.predict import Predictions
from mnist_pipeline.serving.tables import FORMATS, TableFile
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord

MODEL = "digits-classifier"


def open_store(home: Path) -> MlflowStore:
    uri = store.sqlite_uri(home / "mlruns" / "mlflow.db")
    return MlflowStore(TrackingConfig(uri=Address(uri), experiment="digits"))


@pytest.fixture(scope="module")
def loaded(champion_home: Path) -> Champion:
    return champion.load(open_store(champion_home), MODEL)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return digits_arrays()


bad: list[tuple[str, str]] = []


def call(paths: list[Path], loaded: Champion, output: Path | None = None) -> Predictions:
    bad.clear()
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(TableFile(output)) if output else None
        return predict.predict(
            paths, loaded, invert=Invert.auto, output=table, on_bad=lambda name, reason: bad.append((name, reason))
        )


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.read_json(path) if path.suffix == ".json" else pd.read_parquet(path)


def test_the_champion_gives_its_runs_predictions(loaded: Champion, champion_home: Path, arrays: Arrays) -> None:
    client = MlflowClient(open_store(champion_home).uri)
    run = client.get_run(client.get_model_version(MODEL, "1").run_id)
    folder = Path(mlflow.artifacts.download_artifacts(run.info.artifact_uri))
    logged = pd.read_parquet(folder / "evaluate/predictions.parquet")
    found = loaded.predict(arrays["x_test"])
    np.testing.assert_allclose(found, logged.filter(like="probability_"), atol=1e-5)
    assert (loaded.version, loaded.class_names) == (1, tuple("0123456789"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_image_gets_a_row_in_every_format(suffix: str, loaded: Champion, arrays: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", x_test=arrays["x_test"], y_test=arrays["y_test"])
    output = tmp_path / f"out{suffix}"
    result = call([tmp_path / "digits.npz"], loaded, output)
    assert (result.num_images, len(result.first), result.num_bad) == (360, predict.NUM_SHOWN, 0)
    table = read(output)
    expected = loaded.predict(arrays["x_test"])
    assert table["image"].iloc[7] == f"{tmp_path / 'digits.npz'}:x_test[7]"
    np.testing.assert_array_equal(table["predicted"].astype(int), expected.argmax(axis=1))
    np.testing.assert_allclose(table.filter(like="probability_"), expected, atol=1e-6)
    np.testing.assert_allclose(table["probability"], expected.max(axis=1), atol=1e-6)
    assert set(table["model"]) == {MODEL}
    assert set(table["version"]) == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.npz", f"out{suffix}"]


def test_a_folder_is_searched_and_bad_files_are_named(loaded: Champion, arrays: Arrays, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number in range(3):
        image = Image.fromarray(255 - arrays["x_test"][number]).resize((90, 90))
        image.save(tmp_path / "deep" / "er" / f"{number}.png")
    (tmp_path / "deep" / "notes.txt").write_text("no image, and not taken for one")
    (tmp_path / "deep" / "bad.png").write_text("text")
    Image.new("L", (50, 50), 255).save(tmp_path / "deep" / "blank.jpg")
    (tmp_path / "empty").mkdir()
    told: list[str] = []
    paths = [tmp_path / "deep", tmp_path / "empty", tmp_path / "nowhere.png", tmp_path / "deep" / "notes.txt"]
    result = predict.predict(
        paths, loaded, invert=Invert.auto, output=None, on_bad=lambda name, reason: told.append(Path(name).name)
    )
    assert told == ["bad.png", "blank.jpg", "empty", "nowhere.png", "notes.txt"]
    assert [Path(row["image"]).name for row in result.first] == ["0.png", "1.png", "2.png"]
    fitted = [
        fit_digit(read_grey(tmp_path / f"deep/er/{number}.png"), image_shape=(28, 28), invert=Invert.yes)
        for number in range(3)
    ]
    expected = loaded.predict(np.stack(fitted)).argmax(axis=1)
    assert [int(row["predicted"]) for row in result.first] == list(expected)


def test_a_folder_names_what_it_leaves_out(loaded: Champion, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (scans / "linked").symlink_to("../elsewhere")
    digit = Image.new("L", (40, 40))
    digit.paste(255, (18, 10, 22, 30))
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "._a.png"):
        digit.save(scans / name)
    for name in ("b.heic", "c.npy", "labels.csv"):
        (scans / name).write_text("-")
    result = call([scans], loaded)
    assert [Path(row["image"]).name for row in result.first] == ["a.png"]
    assert sorted(Path(name).name for name, _ in bad) == [".ipynb_checkpoints", "b.heic", "c.npy", "linked"]
    assert result.num_bad == 3  # a hidden folder is left out by intention
    assert "HEIC" in next(reason for name, reason in bad if name.endswith(".heic"))


def test_one_bad_image_of_an_array_does_not_stop_the_others(loaded: Champion, tmp_path: Path) -> None:
    grey = np.zeros((3, 40, 40), np.uint8)
    grey[[0, 2], 10:30, 18:22] = 255
    np.savez(tmp_path / "a.npz", x=grey)
    result = call([tmp_path / "a.npz"], loaded)
    assert result.num_images == 2
    assert [name.rpartition(":")[2] for name, _ in bad] == ["x[1]"]


def test_an_interrupted_prediction_leaves_the_old_output(loaded: Champion, arrays: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=arrays["x_test"])
    (tmp_path / "out.csv").write_text("what was there before")

    def interrupt(name: str, reason: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), TableFile(tmp_path / "out.csv") as table:
        predict.predict(
            [tmp_path / "a.npz", tmp_path / "gone.png"], loaded, invert=Invert.auto, output=table, on_bad=interrupt
        )
    assert (tmp_path / "out.csv").read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "out.csv"]


def test_a_full_disk_is_reported_and_leaves_nothing(
    loaded: Champion, arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", x=arrays["x_test"])

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(UserError, match=r"out.csv cannot be written \(No space left on device\)"):
        call([tmp_path / "a.npz"], loaded, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        call([tmp_path / "a.npz"], loaded, tmp_path / "gone" / "out.parquet")


def test_odd_files_and_names_do_no_harm(loaded: Champion, arrays: Arrays, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait for ever
    (tmp_path / "loop").symlink_to(tmp_path)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/[red]\xff\n.png"))
    Image.fromarray(arrays["x_test"][0]).save(odd)
    result = call([tmp_path], loaded, tmp_path / "out.json")
    assert result.num_images == 1
    assert [Path(name).name for name, _ in bad] == ["loop", "pipe.png"]
    assert result.first[0]["image"].endswith("/[red]\\xff\\n.png")


def test_without_any_image_the_old_output_stays(loaded: Champion, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("what was there before")
    call([tmp_path / "gone.png"], loaded, tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "what was there before"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(loaded: Champion, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "many.npz", x=np.zeros((400_000, 28, 28), np.uint8))  # 314 MB, if it were read
    np.savez_compressed(tmp_path / "few.npz", x=np.zeros((20_000, 28, 28), np.uint8))
    call([tmp_path / "few.npz"], loaded, tmp_path / "few.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = call([tmp_path / "many.npz"], loaded, tmp_path / "many.parquet")
    assert result.num_images == 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_without_a_champion_the_next_step_is_named(home: Path) -> None:
    with pytest.raises(UserError, match="digits-classifier has no champion: promote a run first"):
        champion.load(open_store(home), MODEL)


@pytest.fixture
def in_champion_home(monkeypatch: pytest.MonkeyPatch, champion_home: Path) -> Path:
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(champion_home))
    return champion_home


def test_the_command_prints_a_table_and_exits_with_1_for_a_bad_file(
    cli: Cli, in_champion_home: Path, arrays: Arrays, tmp_path: Path
) -> None:
    Image.fromarray(arrays["x_test"][0]).save(tmp_path / "digit=0.png")
    (tmp_path / "bad.png").write_text("text")
    found = cli(
        "predict", str(tmp_path / "digit=0.png"), str(tmp_path / "bad.png"), "data=digits", "--output",
        str(tmp_path / "out.csv"), MNIST_PIPELINE_HOME=str(in_champion_home),
    )  # fmt: skip
    assert found.returncode == 1
    assert f"skipped {tmp_path}/bad.png: it is not a picture in a known format" in found.stderr
    assert found.stderr.splitlines()[-1] == "error: 1 skipped (see above); 1 images are classified"
    assert "version 1 of digits-classifier" in found.stdout
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "the following arguments are required"),
        (["predict", "data=digits"], "expected files or folders"),
        (["predict", "a.png", "--output", "out.xlsx"], "expected a name that ends in .csv or .json or .parquet"),
        (["predict", "a.png", "--output", "/nowhere/out.csv"], "there is no folder /nowhere"),
        (["predict", "a.png", "--invert", "maybe"], "invalid choice"),
        (["serve", "--port", "0x"], "argument --port"),
        (["serve", "model.hidden_width=3"], "unknown key model.hidden_width"),
        (["promote", "one", "two"], "one two: one run at a time"),
        (["promote", "promote.alpha=7"], "promote.alpha=7: expected a finite number above 0 and below 1"),
        (["rollback"], "the following arguments are required: --reason"),
        (["rollback", "--reason", " "], "--reason: expected one line"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str, cli: Cli) -> None:
    found = cli(*arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["predict", "a.png"], ["serve", "--port", "5061"], ["promote"], ["history"]])
def test_without_a_store_nothing_is_created(arguments: list[str], cli: Cli, tmp_path: Path) -> None:
    found = cli(*arguments, MNIST_PIPELINE_HOME=str(tmp_path / "new"))
    assert found.returncode == 1
    assert "there are no runs yet: train one first" in found.stderr
    assert not (tmp_path / "new" / "mlruns" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("params", "tags", "image_shape", "expected"),
    [
        ({"data.name": "mnist"}, {}, (28, 28), ("digit", "grey")),  # a run of 0.1
        ({"data.name": "digits"}, {"data.option": "digits"}, (28, 28), ("digit", "grey")),
        ({"data.name": "fashion_mnist"}, {"data.option": "fashion_mnist"}, (28, 28), ("resize", "grey")),
        ({"data.name": "mine"}, {"data.option": "arrays"}, (8, 9, 3), ("resize", "rgb")),
        ({"data.name": "mine", "data.fit": "pad"}, {"data.option": "folder"}, (8, 9, 3), ("pad", "rgb")),
        ({"data.name": "mine", "data.fit": "evil"}, {"data.option": "folder"}, (8, 9), ("resize", "grey")),
    ],
)
def test_pictures_are_made_images_as_the_data_was(
    params: dict[str, str], tags: dict[str, str], image_shape: tuple[int, ...], expected: tuple[str, str]
) -> None:
    run = RunRecord(
        run_id="a", experiment_id="1", name="a", status="FINISHED", address="", started_ms=0, params=params,
        metrics={}, tags=tags, read_bytes=lambda path: b"",
    )  # fmt: skip
    form = champion.choose_form(run, image_shape)
    assert (form.fit, form.color) == expected
    assert form.image_size == image_shape[:2]
