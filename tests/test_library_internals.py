import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import tensorflow as tf
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
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
