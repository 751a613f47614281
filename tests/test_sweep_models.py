"""Sweeps over models and over what trains them: conditional keys, early stopping, duplicates, kill and resume."""

import json
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
from sweep_home import client_of, outcome, runs, start_sweep, sweep_here

from mnist_pipeline.config import compose
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.artifacts import draw_plots
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.sweep.space import Choice, Interval
from mnist_pipeline.system.errors import ConfigError

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
MODELS = "sweep.space.model={type: categorical, choices: [dense, mlp]}"
SMALL = [
    "data=digits", "sweep.study=s", "sweep.num_workers=1", "sweep.num_trials=6", "train.num_epochs=2",
    "sweep.space.train=null", "sweep.confirm.top_k=1", "sweep.confirm.num_seeds=2", "sweep.confirm.max_seeds=2",
    "sweep.space.model={type: categorical, choices: [dense, mlp], dense: {hidden_width: {high: 32}}, "
    "mlp: {hidden_widths: {type: categorical, choices: [[16], [16, 8]]}}}",
]  # fmt: skip


def read(*overrides: str) -> SweepConfig:
    return settings.compose_sweep(overrides)[1]


def test_the_keys_of_a_model_stand_below_it() -> None:
    space = read(MODELS, "sweep.space.train=null").space
    assert list(space) == [
        "model", "model.dense.dropout_rate", "model.dense.hidden_width",
        "model.mlp.dropout_rate", "model.mlp.hidden_widths",
    ]  # fmt: skip
    assert space["model"] == Choice(("dense", "mlp"))
    assert space["model.dense.hidden_width"] == Interval(is_integer=True, low=16, high=512, step=None, log=True)
    assert isinstance(space["model.mlp.hidden_widths"], Choice)
    assert space["model.mlp.hidden_widths"].choices[0] == "[128, 64]"


def test_a_key_counts_only_where_its_model_is_chosen() -> None:
    base, config = settings.compose_sweep([MODELS, "sweep.space.train=null"])
    space = config.space
    assert space.is_active("model.mlp.hidden_widths", {"model": "mlp"})
    assert not space.is_active("model.mlp.hidden_widths", {"model": "dense"})
    assert space.read(base) == {"model": "dense", "model.dense.dropout_rate": 0.2, "model.dense.hidden_width": 128}
    params = {"model": "mlp", "model.mlp.dropout_rate": 0.1, "model.mlp.hidden_widths": "[128, 64]"}
    applied = space.apply(base, params)
    assert applied.model.name == "mlp"
    assert (applied.model.arguments["hidden_widths"], applied.model.arguments["dropout_rate"]) == ((128, 64), 0.1)
    assert space.read(applied) == params
    assert space.resolve(base, params) == (
        {"model": "mlp"},
        {"model.dropout_rate": 0.1, "model.hidden_widths": [128, 64]},
    )


def test_optimisers_are_swept_in_the_same_way() -> None:
    base, config = settings.compose_sweep(
        [
            "sweep.space.model=null",
            "sweep.space.train={optimizer: {type: categorical, choices: [adam, sgd], "
            "sgd: {momentum: {type: categorical, choices: [0.0, 0.9]}}}}",
        ]
    )
    assert [key for key in config.space if key != "train.num_epochs"] == [
        "train.optimizer", "train.optimizer.sgd.momentum",
    ]  # fmt: skip
    applied = config.space.apply(base, {"train.optimizer": "sgd", "train.optimizer.sgd.momentum": 0.9})
    assert (applied.train.optimizer.name, applied.train.optimizer.arguments["momentum"]) == ("sgd", 0.9)


def test_a_grid_has_each_point_of_each_model_once() -> None:
    text = (
        "sweep.space.model={type: categorical, choices: [dense, mlp], "
        "dense: {hidden_width: {type: categorical, choices: [8, 16], low: null, high: null, log: null}, "
        "dropout_rate: null}, mlp: {hidden_widths: {type: categorical, choices: [[8]]}, dropout_rate: null}}"
    )
    space = read("sweep.sampler=grid", "sweep.space.train=null", text).space
    assert space.points() == [
        {"model": "dense", "model.dense.hidden_width": 8},
        {"model": "dense", "model.dense.hidden_width": 16},
        {"model": "mlp", "model.mlp.hidden_widths": "[8]"},
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{type: categorical, choices: [dense, nope]}", "no such option"),
        ("{type: categorical, choices: [dense, dense]}", "expected each option once"),
        ("{type: categorical, choices: []}", "a list of options"),
        ("{type: int, low: 1, high: 2}", "expected type: categorical"),
        ("{type: categorical, choices: [dense], conv: {filters: null}}", "sweep.space.model.conv: expected"),
        (
            "{type: categorical, choices: [dense], dense: {filters: {type: int, low: 1, high: 2}}}",
            "sweep.space.model.dense.filters: unknown key",
        ),
        (
            "{type: categorical, choices: [mlp], mlp: {hidden_widths: {type: categorical, choices: [[0]]}}}",
            "hidden_widths",
        ),
    ],
)
def test_a_wrong_space_of_models_is_reported_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"sweep.space.model={override}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["dense", "mlp", "conv"])
def test_a_space_stands_beside_each_model(model: str) -> None:
    base, config = settings.compose_sweep([f"model={model}"])
    assert [key for key in config.space if key.startswith("model.")]
    assert all(config.space[key].contains(value) for key, value in config.space.read(base).items())


@linux
@pytest.mark.slow
def test_a_sweep_over_models(home: Path) -> None:
    found = sweep_here(*SMALL)
    trials = found.study.trials()
    assert {trial.params["model"] for trial in trials} == {"dense", "mlp"}
    for trial in trials:
        own = f"model.{trial.params['model']}."
        assert all(key == "model" or key.startswith(own) for key in trial.params)
        (run,) = [run for run in runs(home, "trial") if run.data.tags["trial.number"] == str(trial.number)]
        assert run.data.params["model.name"] == trial.params["model"]
        assert ("model.hidden_widths" in run.data.params) is (trial.params["model"] == "mlp")
    (parent,) = runs(home, "sweep")
    artifacts = home / "mlruns" / "artifacts" / "digits" / parent.info.run_id / "artifacts" / "sweep"
    table = pd.read_parquet(artifacts / "trials.parquet")
    assert table.loc[table["model"] == "mlp", "model.dense.hidden_width"].isna().all()
    names = {path.stem for path in artifacts.glob("*.png")}
    assert {"parallel_coordinates", "parallel_coordinates_model=dense", "parallel_coordinates_model=mlp"} <= names
    columns = json.loads(client_of(home).get_experiment("1").tags["mlflow.sharedViewState.overview"])["selectedColumns"]
    assert {"params.`model.name`", "params.`model.hidden_width`", "params.`model.hidden_widths`"} <= set(columns)

    (winner,) = compose.check(["preset=winner", "data=digits"], config_dir=str(artifacts))
    (final,) = runs(home, "final")
    params = {key: str(value) for key, value in winner.flat().items() if key.startswith("model.")}
    assert params == {key: value for key, value in final.data.params.items() if key.startswith("model.")}

    before = outcome(found.study)
    again = sweep_here(*SMALL)
    assert outcome(again.study) == before
    assert len(runs(home, "trial")) == 6


@linux
@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_killed_sweep_over_models_ends_as_an_undisturbed_one(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = [*SMALL, "sweep.confirm=null", "train.num_epochs=6", "train.early_stopping.patience=1"]
    found = []
    for name, is_killed in (("quiet", False), ("killed", True)):
        monkeypatch.setenv("MNIST_PIPELINE_HOME", str(tmp_path / name))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if is_killed:
            process = start_sweep(*stopping)
            while process.poll() is None and sum_finished(tmp_path / name) < after:
                time.sleep(0.05)
            process.kill()
            process.communicate()
        found.append(outcome(sweep_here(*stopping).study))
    assert found[0] == found[1]


def sum_finished(home: Path) -> int:
    if not (home / "mlruns" / "optuna").is_dir():
        return 0
    text = "".join(path.read_text() for path in (home / "mlruns" / "optuna").glob("*.log"))
    return text.count('"state": 1')


@pytest.mark.slow
@linux
def test_early_stopping_ends_trials_and_their_value_is_that_of_the_kept_epoch(home: Path) -> None:
    overrides = [
        "data=digits", "sweep.study=s", "sweep.num_workers=1", "sweep.num_trials=4", "sweep.confirm=null",
        "sweep.space.train=null", "sweep.pruner=none", "train.num_epochs=8", "train.learning_rate=0.02",
        "train.early_stopping.patience=1", "sweep.metric=validation/loss", "sweep.direction=minimize",
    ]  # fmt: skip
    found = sweep_here(*overrides)
    trials = found.study.trials()
    assert min(trial.last_step or 0 for trial in trials) < 8
    for trial in trials:
        values = list(trial.intermediate_values.values())
        assert trial.value == min(values)
        assert len(values) in (8, values.index(min(values)) + 2)
        (run,) = [run for run in runs(home, "trial") if run.data.tags["trial.number"] == str(trial.number)]
        assert run.data.metrics["kept/epoch"] == values.index(min(values)) + 1
        assert run.data.metrics["kept/validation/loss"] == trial.value

    # Another study reuses the tracked epochs; with more patience it goes on where they end.
    patient = [word for word in overrides if not word.startswith(("sweep.study", "train.early_stopping"))]
    more = sweep_here(*patient, "sweep.study=t", "train.early_stopping.patience=3")
    first, second = trials[0].intermediate_values, more.study.trials()[0].intermediate_values
    assert list(second.values())[: len(first)] == list(first.values())
    assert more.study.trials()[0].user_attrs["source"] == trials[0].user_attrs["run_id"]


def test_plots_of_a_conditional_space_are_drawn_for_each_model() -> None:
    study = optuna.create_study(direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("model", ["dense", "mlp"]) == "dense":
            return trial.suggest_int("model.dense.hidden_width", 16, 512) / 512
        return trial.suggest_float("model.mlp.dropout_rate", 0, 0.6)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(objective, n_trials=8)
    drawn = draw_plots(study, read(MODELS, "sweep.space.train=null"))
    assert {"sweep/slices.png", "sweep/slices_model=dense.png", "sweep/slices_model=mlp.png"} <= set(drawn)
    page = drawn["sweep/plots.html"]
    assert isinstance(page, str)
    assert "<h2>Slices model=dense</h2>" in page
