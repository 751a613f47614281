import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import tensorflow as tf
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import IntDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.trial import TrialState
from scipy import special
from tensorflow.python.eager import context

from mnist_pipeline.config import hydra_internals
from mnist_pipeline.sweep import optuna_internals
from mnist_pipeline.train.tensorflow_internals import single_threaded_executor


def test_the_parser_knows_the_flags_of_a_hydra_app() -> None:
    parsed = hydra_internals.make_parser().parse_args(["--cfg", "job", "-m", "--config-dir", "/x", "a=1", "b=2"])
    assert (parsed.cfg, parsed.multirun, parsed.config_dir, parsed.overrides) == ("job", True, "/x", ["a=1", "b=2"])


def test_a_sweep_is_split_in_the_order_of_its_keys() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=3,4"])
    assert hydra_internals.split_sweep(parsed) == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=x", "c=4"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=x", "c=4"],
    ]


def test_values_are_listed_and_written_in_the_same_grammar() -> None:
    choice, single = OverridesParser.create().parse_overrides(["a=1,'x y'", "b={c: [1, null]}"])
    assert list(map(hydra_internals.write_value, hydra_internals.list_values(choice))) == ["1", "'x y'"]
    assert list(map(hydra_internals.write_value, hydra_internals.list_values(single))) == ["{c:[1,null]}"]


def test_a_glob_is_found_and_chooses_among_names() -> None:
    glob, other = OverridesParser.create().parse_overrides(["preset=glob([a*,b],exclude=ab)", "x=1"])
    found = hydra_internals.find_glob(glob)
    assert found is not None
    assert found.filter(["a", "ab", "b", "c"]) == ["a", "b"]
    assert hydra_internals.find_glob(other) is None


def test_an_unfinished_trial_is_continued_with_its_number_and_values() -> None:
    study = optuna.create_study()
    value = optuna_internals.suggest(study.ask(), "width", IntDistribution(1, 1000))
    (left,) = study.get_trials(states=[TrialState.RUNNING])
    trial = optuna_internals.reopen(study, left)
    assert trial.number == 0
    assert optuna_internals.suggest(trial, "width", IntDistribution(1, 1000)) == value
    study.tell(trial, 0.5)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_tpe_computes_with_scipy_what_optuna_computes_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.concatenate([np.linspace(-40, 40, 2_001), [-1e-9, 0.0, 1e-9, -6.0, 6.0, -20.0]])
    own = np.array([_truncnorm._log_ndtr_single(float(value)) for value in values])
    monkeypatch.setattr(_truncnorm, "_log_ndtr", _truncnorm._log_ndtr)  # put back afterwards
    optuna_internals.speed_up_tpe()
    assert _truncnorm._log_ndtr(values) == pytest.approx(own, rel=1e-7, abs=1e-12)
    num_calls = 0

    def count(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nonlocal num_calls
        num_calls += 1
        return np.asarray(special.log_ndtr(array))

    monkeypatch.setattr(_truncnorm, "_log_ndtr", count)
    study = optuna.create_study(sampler=TPESampler(n_startup_trials=1, seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert num_calls > 0


def test_the_lock_of_a_journal_is_a_lock_of_the_operating_system(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with optuna_internals.locked(optuna_internals.JournalLock(path)), pytest.raises(Timeout):
        FileLock(path).acquire(blocking=False)
    FileLock(path).acquire(blocking=False)


def test_the_single_threaded_executor_is_used_inside_the_block_only() -> None:
    double = tf.function(lambda x: 2 * x)

    def executor() -> str:
        return str(context.context().function_call_options.executor_type)

    before = executor()
    with single_threaded_executor():
        assert executor() == "SINGLE_THREADED_EXECUTOR"
        assert int(double(tf.constant(21))) == 42
    assert executor() == before


def test_keras_works_without_what_it_imports_for_wrappers_and_plots() -> None:
    program = (
        "import sys; from mnist_pipeline.system.heavy_imports import import_keras\n"
        "import_keras(); import keras\n"
        "assert not {'sklearn', 'matplotlib'} & sys.modules.keys()\n"
        "assert keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).count_params() == 9\n"
        "import sklearn.datasets, matplotlib.figure; import_keras()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
