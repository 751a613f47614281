import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_pipeline.config import compose, overrides
from mnist_pipeline.system.errors import ConfigError

OPTIONS = sorted(
    (path.parent.name, path.stem)
    for path in (ROOT / "conf").glob("*/*.yaml")
    if path.parent.name in ("data", "model", "train", "evaluate", "tracking", "preset")
)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    needs_path = option in ("arrays", "csv", "folder", "idx", "parquet")
    composed = compose.compose([f"{group}={option}", *(["data.path=/some where/my-set.v2.npz"] if needs_path else [])])
    assert composed.train.num_epochs >= 1
    assert not needs_path or composed.data.name == composed.tracking.experiment == "my-set"


def test_the_default_is_the_baseline() -> None:
    flat = compose.compose([]).flat()
    assert flat["data.name"] == "mnist"
    assert flat["data.validation_size"] == 5000
    assert flat["data.fallback"] == "digits"
    assert flat["model.hidden_width"] == 128
    assert flat["model.dropout_rate"] == 0.2
    assert flat["train.num_epochs"] == 9
    assert flat["train.batch_size"] == 32
    assert flat["train.learning_rate"] == 0.001
    assert flat["tracking.experiment"] == "mnist"


def test_presets_are_small_differences() -> None:
    default = compose.compose([]).flat()
    tutorial = compose.compose(["preset=tutorial"]).flat()
    assert {key: tutorial[key] for key in tutorial if tutorial[key] != default[key]} == {"data.validation_size": 0}
    smoke = compose.compose(["preset=smoke"])
    assert (smoke.data.name, smoke.train.num_epochs) == ("digits", 2)
    assert compose.compose(["preset=smoke", "data=mnist"]).data.name == "mnist"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hiden_width=3"], "unknown key model.hiden_width: did you mean model.hidden_width?"),
        (["foo=1"], "unknown key foo: expected data, model, train, evaluate, tracking, executor, preset, force, wait"),
        (["+foo=1"], "unknown key foo"),
        (["+model.depth=2"], "unknown key model.depth"),
        (["foo"], "foo: not an override; expected KEY=VALUE, e.g. train.num_epochs=3"),
        (["model.hidden_width=[1,2"], "not an override"),
        (["preset=glob(*)"], "several values need --multirun"),
        (["model.hidden_width=glob(*)"], "among the options of a group, e.g. preset="),
        (["preset=glob(x*)"], "no option matches; there are smoke, tutorial"),
        (["hydra/launcher=joblib"], "hydra/launcher: the runs of a --multirun are started here"),
        (["hydra.sweeper.max_batch_size=2"], "hydra.sweeper.max_batch_size: the runs"),
        (["preset=nope"], "preset=nope: no such option; expected smoke or tutorial"),
        (["data=nope"], "data=nope: no such option; expected arrays or csv or digits"),
        (["~model"], "expected a section of keys, e.g. model="),
        (["model.hidden_width=abc"], "model.hidden_width=abc: expected an integer"),
        (["model.hidden_width=-5"], "model.hidden_width=-5: expected an integer from 1 to 100,000"),
        (["model.hidden_width=0"], "model.hidden_width=0: expected an integer from 1"),
        (["model.dropout_rate=1.0"], "model.dropout_rate=1.0: expected a finite number from 0 and below 1"),
        (["model.dropout_rate=nan"], "model.dropout_rate=nan: expected a finite number from 0"),
        (["train.num_epochs=0"], "train.num_epochs=0: expected an integer from 1"),
        (["train.num_epochs=2.5"], "train.num_epochs=2.5: expected an integer"),
        (["train.num_epochs=true"], "train.num_epochs=True: expected an integer"),
        (["train.num_epochs=null"], "train.num_epochs=null: expected an integer"),
        (["train.learning_rate=nan"], "train.learning_rate=nan: expected a finite number"),
        (["train.learning_rate=-1"], "train.learning_rate=-1: expected a finite number above 0"),
        (["train.seed=-1"], "train.seed=-1: expected an integer from 0"),
        (["train.seed=1,2"], "train.seed=1,2: several values need --multirun"),
        (["data.validation_size=-1"], "data.validation_size=-1: expected a number of images from 0, or a share"),
        (["data.validation_size=1.5"], "data.validation_size=1.5: expected a number of images from 0, or a share"),
        (["data=arrays"], "data.path is missing: give data.path=VALUE"),
        (["data=arrays", "data.path=x.npz", "data.pth=3"], "unknown key data.pth: did you mean data.path?"),
        (
            ["data=folder", "data.path=x", "data.fit=squeeze"],
            "data.fit=squeeze: expected resize or crop or pad or digit",
        ),
        (["data=folder", "data.path=x", "data.image_size=[3]"], "expected a list of 2, each an integer or null"),
        (["data=folder", "data.path=x", "data.name=a/b"], "data.name=a/b: expected a name of 1 to 100 letters"),
        (["data.fallback=foo"], "data.fallback=foo: expected digits or null"),
        (["data=digits", "data.npz_url=http://x"], "unknown key data.npz_url"),
        (["tracking.experiment="], "expected a name of 1 to 200 characters"),
        (["tracking.experiment=" + "x" * 201], "expected a name of 1 to 200 characters"),
        (["data=null"], "data=None: no such option"),
        (["model.name=dense"], "model.name: select one with model="),
        (["data.timeout_sec=soon"], "data.timeout_sec=soon: expected a finite number"),
        (["train.seed=" + "9" * 5000], "not an override"),
        (["model.hidden_width=${nope}"], "Interpolation key 'nope' not found"),
    ],
)
def test_wrong_input_is_reported_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.compose(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["train.seed='3'"], "train.seed", 3),
        (["train.learning_rate='1e-4'"], "train.learning_rate", 1e-4),
        (["train.learning_rate=1"], "train.learning_rate", 1.0),
        (["tracking.experiment=2026"], "tracking.experiment", "2026"),
    ],
)
def test_numbers_may_be_quoted(overrides: list[str], key: str, expected: object) -> None:
    found = compose.compose(overrides).flat()[key]
    assert found == expected
    assert type(found) is type(expected)


def test_a_preset_for_mnist_does_not_break_the_fallback(tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    preset = "# @package _global_\ndata:\n  num_retries: 7\n  split_seed: 9\nmodel:\n  hidden_width: 64\n"
    (tmp_path / "preset" / "patient.yaml").write_text(preset)
    overrides = ["preset=patient", "data.timeout_sec=3", "train.seed=4"]
    found = compose.compose_with_data(overrides, "digits", config_dir=str(tmp_path))
    assert found.data == compose.compose(["data=digits"]).data
    assert (found.model.arguments["hidden_width"], found.train.seed, found.tracking.experiment) == (64, 4, "digits")


@pytest.mark.parametrize("model", ["dense", "mlp", "conv"])
@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "conf" / "preset").glob("*.yaml")))
def test_every_preset_goes_with_every_model(preset: str, model: str) -> None:
    assert compose.compose([f"preset={preset}", f"model={model}"]).model.name == model


def test_zero_is_a_value() -> None:
    composed = compose.compose(["train.seed=0", "data.split_seed=0", "data.validation_size=0", "model.dropout_rate=0"])
    assert (composed.train.seed, composed.data.validation_size, composed.model.arguments["dropout_rate"]) == (0, 0, 0.0)


def test_a_multirun_is_checked_whole() -> None:
    runs = compose.check(["train.seed=0,1,2", "model.hidden_width=16,32"], multirun=True)
    assert [(run.train.seed, run.model.arguments["hidden_width"]) for run in runs] == [
        (seed, width) for seed in (0, 1, 2) for width in (16, 32)
    ]
    with pytest.raises(ConfigError, match=r"make no run at all"):
        compose.check(["train.seed=range(0,0)"], multirun=True)
    with pytest.raises(ConfigError, match=r"train.seed=-1"):
        compose.check(["train.seed=0,-1"], multirun=True)


def test_a_further_folder_adds_presets(tmp_path: Path) -> None:
    folder = tmp_path / "it's, (1)"
    (folder / "preset").mkdir(parents=True)
    (folder / "preset" / "wide.yaml").write_text("# @package _global_\nmodel:\n  hidden_width: 512\n")
    (wide,) = compose.check(["preset=wide"], config_dir=str(folder))
    assert wide.model.arguments["hidden_width"] == 512


def test_overrides_of_a_group_are_recognized() -> None:
    kept, dropped = overrides.without_group(
        ["data=mnist", "data.split_seed=3", "train.seed=1", "preset=tutorial"], "data"
    )
    assert kept == ["train.seed=1", "preset=tutorial"]
    assert dropped == ["data=mnist", "data.split_seed=3"]


def test_the_server_option_takes_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert compose.compose(["tracking=server"]).tracking.uri == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999")
    assert compose.compose(["tracking=server"]).tracking.uri == "http://127.0.0.1:5999"


def test_a_password_is_never_logged() -> None:
    flat = compose.compose(["tracking.uri=postgresql://me:secret@db/x"]).flat()
    assert flat["tracking.uri"] == "postgresql://***@db/x"


def test_configuration_is_checked_without_heavy_imports() -> None:
    code = (
        "import sys; from mnist_pipeline import cli; from mnist_pipeline.config import compose;"
        "from mnist_pipeline.system import paths; from mnist_pipeline.tracking import store; compose.compose([]);"
        "print({'numpy', 'tensorflow', 'keras', 'mlflow', 'optuna', 'pandas'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_a_glob_stands_for_the_options_that_match(tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "slow.yaml").write_text("# @package _global_\ntrain:\n  num_epochs: 77\n")
    asked = ["preset=glob(s*)", "train.seed=1"]
    configs = compose.check(asked, multirun=True, config_dir=str(tmp_path))
    assert [config.train.num_epochs for config in configs] == [77, 2]
    assert compose.expand_globs(asked, config_dir=str(tmp_path)) == ["preset=slow,smoke", "train.seed=1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf# @package _global_\nmodel:\n  hidden_width: 24\n", "starts with a byte order mark"),
        ("# @package _global_\n".encode("utf-16"), "is not in UTF-8"),
        (b"# @package _global_\nmodel: [\n", "a YAML file is damaged: .*mine.yaml"),
    ],
)
def test_a_file_that_hydra_would_misread_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        compose.check(["preset=mine"], config_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1e3", "007", "1_000", "1.50", "+5", "2024-01-01", "NaN", "1.0", "12", ":smile:", "0x10"]
)
def test_a_text_is_kept_as_typed(text: str) -> None:
    quoted = f"'{text}'" if text == ":smile:" else text
    assert compose.compose([f"tracking.experiment={quoted}"]).tracking.experiment == text
    assert compose.compose(["data=arrays", f"data.path=x/{text}"]).data.arguments["path"] == f"x/{text}"


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), (".002", 0.002), ("1_0", 10.0), ("0.10", 0.1)])
def test_a_number_may_be_typed_in_any_way(text: str, value: float) -> None:
    assert compose.compose([f"train.learning_rate={text}"]).train.learning_rate == value
