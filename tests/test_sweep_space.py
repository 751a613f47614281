import math

import pytest

from mnist_pipeline.config import compose
from mnist_pipeline.config.changes import with_values
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.settings import SweepConfig
from mnist_pipeline.sweep.space import Choice, Interval
from mnist_pipeline.system.errors import ConfigError


def read(*overrides: str) -> SweepConfig:
    return settings.compose_sweep(overrides)[1]


def test_the_default_space_is_that_of_the_baseline() -> None:
    config = read()
    assert config.space.dimensions == {
        "model.dropout_rate": Interval(is_integer=False, low=0.0, high=0.6, step=0.05, log=False),
        "model.hidden_width": Interval(is_integer=True, low=16, high=512, step=None, log=True),
        "train.num_epochs": Interval(is_integer=True, low=3, high=15, step=1, log=False),
    }
    assert (config.num_trials, config.metric, config.confirm) == (
        40,
        "validation/accuracy",
        settings.ConfirmConfig(top_k=3, num_seeds=5, max_seeds=20, min_gain=0.001),
    )


@pytest.mark.parametrize("option", ["default", "learning_rate", "grid"])
def test_every_option_holds_the_baseline(option: str) -> None:
    base, config = settings.compose_sweep([f"sweep={option}"])
    baseline = config.space.read(base)
    assert all(config.space[key].contains(value) for key, value in baseline.items())


def test_a_preset_has_its_own_space_which_a_single_run_ignores() -> None:
    config = read("preset=smoke")
    epochs = config.space["train.num_epochs"]
    assert isinstance(epochs, Interval)
    assert (config.num_trials, epochs.low, epochs.high) == (8, 1, 4)
    assert compose.compose(["preset=smoke"]).train.num_epochs == 2


def test_a_key_may_leave_the_space_and_be_fixed() -> None:
    config = read("~sweep.space.train.num_epochs", "train.num_epochs=5")
    assert list(config.space) == ["model.dropout_rate", "model.hidden_width"]
    assert list(read("~sweep.space.model").space) == ["train.num_epochs"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.num_trails=3"], "unknown key sweep.num_trails: did you mean sweep.num_trials?"),
        (["sweep.num_trials=0"], "sweep.num_trials=0: expected an integer from 1"),
        (["sweep.num_trials=many"], "sweep.num_trials=many: expected an integer"),
        (["sweep.num_workers=0"], "sweep.num_workers=0: expected an integer from 1"),
        (["sweep.timeout_sec=-1"], "sweep.timeout_sec=-1.0: expected a number of seconds above 0, or null"),
        (["sweep.sampler=best"], "sweep.sampler=best: expected tpe or random or grid"),
        (["sweep.pruner=null"], "sweep.pruner=null: expected median or hyperband or none"),
        (["sweep.metric=test/accuracy"], "sweep.metric=test/accuracy: expected validation/accuracy or"),
        (["sweep.direction=up"], "sweep.direction=up: expected maximize or minimize"),
        (["sweep.study="], "sweep.study=: expected 1 to 100 letters, digits, blanks or _.+-, or null"),
        (["sweep.study=a/b"], "expected 1 to 100 letters"),
        (["sweep.confirm.top_k=0"], "sweep.confirm.top_k=0: expected an integer from 1"),
        (["sweep.confirm.num_seeds=1"], "sweep.confirm.num_seeds=1: expected an integer from 2"),
        (["sweep=nope"], "sweep=nope: no such option; expected default or grid or learning_rate"),
        (["model.hidden_width=64"], "leave it out, or remove it from the space with ~sweep.space.model.hidden_width"),
        (["train.num_threads=2"], "train.num_threads: every worker of a sweep has one; set sweep.num_workers"),
        (["data.validation_size=0"], "data.validation_size=0: a sweep needs validation images"),
        (["train.seed=1,2"], "train.seed=1,2: several values belong in sweep.space"),
        (["sweep.space=null"], "sweep.space is empty"),
        (["sweep.space.model.hidden_width.high=8"], "the range from low=16 to high=8 is empty"),
        (["sweep.space.model.hidden_width.low=0"], "expected a number above 0, as log=true"),
        (["sweep.space.model.hidden_width.low=1.5"], "sweep.space.model.hidden_width.low=1.5: expected an integer"),
        (["sweep.space.model.hidden_width.hihg=8"], "sweep.space.model.hidden_width.hihg: unknown key"),
        (["sweep.space.model.dropout_rate.high=1"], "model.dropout_rate=1.0: expected a finite number"),
        (["sweep.space.model.dropout_rate.step=0"], "dropout_rate.step=0.0: expected a number above 0"),
        (["sweep.space.model.dropout_rate.type=str"], "expected type: int, float or categorical"),
        (["sweep.space.train.num_epochs.type=float"], "sweep.space.train.num_epochs.type=float: expected int"),
        (["+sweep.space.data.split_seed={type:int,low:1,high:2}"], "sweep.space.data: expected keys of model or train"),
        (["+sweep.space.evaluate.num_mistakes={type:int,low:1,high:2}"], "expected keys of model or train"),
        (["+sweep.space.train.num_threads={type:int,low:1,high:2}"], "cannot be swept (every worker has one thread)"),
        (["+sweep.space.train.momentum={type:int,low:1,high:2}"], "sweep.space.train.momentum: unknown key"),
        (["+sweep.space.train.batch_size={type:categorical,choices:[]}"], "expected choices, a list of one or more"),
        (["+sweep.space.train.batch_size={type:categorical,choices:[8,8]}"], "expected each value once"),
        (["+sweep.space.train.batch_size={type:categorical,choices:[8,x]}"], "choices=x: expected an integer"),
        (["+sweep.space.train.batch_size={type:categorical,choices:[0]}"], "batch_size.choices=0: expected an integer"),
        (["sweep.sampler=grid"], "sweep.space.model.hidden_width: a grid needs type=categorical or a step"),
    ],
)  # fmt: skip
def test_wrong_input_is_reported_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_of_a_dimension() -> None:
    steps = Interval(is_integer=False, low=0.0, high=0.6, step=0.05, log=False)
    assert steps.values() == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert steps.contains(0.35)
    assert not steps.contains(0.36)
    assert not steps.contains(0.65)
    integers = Interval(is_integer=True, low=3, high=9, step=2, log=False)
    assert integers.values() == [3, 5, 7, 9]
    assert not integers.contains(4)
    assert Interval(is_integer=True, low=1, high=9, step=None, log=True).values() is None
    assert Choice((1, 2)).contains(2)
    assert math.prod(len(dimension.values() or ()) for dimension in read("sweep=grid").space.dimensions.values()) == 12


def test_params_go_into_their_sections_and_are_checked() -> None:
    base = compose.compose([])
    config = with_values(base, {"model.hidden_width": 7, "train.num_epochs": 2, "train.learning_rate": 0.5})
    assert (config.model.arguments["hidden_width"], config.train.num_epochs, config.train.learning_rate) == (7, 2, 0.5)
    assert config.model.arguments["dropout_rate"] == base.model.arguments["dropout_rate"]
    assert base.model.arguments["hidden_width"] == 128
    with pytest.raises(ConfigError, match=r"model.hidden_width=0"):
        with_values(base, {"model.hidden_width": 0})
