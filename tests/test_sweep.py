"""A sweep, with real workers and a real store."""

import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import Cli
from optuna.trial import TrialState
from sweep_home import ALONE, SMOKE, Recorder, Trials, client_of, outcome, require_whole, runs, sweep_here

from mnist_pipeline.config import compose
from mnist_pipeline.executors import forked
from mnist_pipeline.executors.pool import StopRequest
from mnist_pipeline.reports import cards, page
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking import find_run
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import Point

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.mark.slow
def test_a_sweep_from_the_command_to_the_store(fresh_cli: Cli, home: Path) -> None:
    found = fresh_cli("sweep", "preset=smoke")
    assert found.returncode == 0, found.stderr
    assert "8/8" in found.stderr
    assert len([line for line in found.stderr.splitlines() if line.startswith("trial ")]) == 8
    assert not [line for line in found.stderr.splitlines() if "WARNING" in line or "cuda" in line.lower()]
    assert re.search(r"^winner  +(trial \d+|the baseline: no interval excludes 0)$", found.stdout, re.MULTILINE)
    (parent,) = runs(home, "sweep")
    assert parent.data.metrics["sweep/num_complete"] + parent.data.metrics["sweep/num_pruned"] == 8
    artifacts = home / "mlruns" / "artifacts" / "digits" / parent.info.run_id / "artifacts" / "sweep"
    assert {path.name for path in artifacts.rglob("*") if path.is_file()} == {
        "contours.png", "importances.png", "learning_curves.png", "optimization_history.png",
        "parallel_coordinates.png", "slices.png", "plots.html", "trials.csv", "trials.json", "trials.parquet",
        "verdict.json", "verdict.png", "winner.yaml",
    }  # fmt: skip
    table = pd.read_parquet(artifacts / "trials.parquet")
    assert list(table["number"]) == list(range(8))
    trials = {int(run.data.tags["trial.number"]): run.info.run_id for run in runs(home, "trial")}
    assert list(table["run_id"]) == [trials[number] for number in range(8)]
    first = table.to_dict("records")[0]
    assert [first[key] for key in ("model.hidden_width", "model.dropout_rate", "train.num_epochs")] == [128, 0.2, 2]
    page = (artifacts / "plots.html").read_text()
    assert page.count("<h2>") == 6
    assert 'src="http' not in page
    assert len(runs(home, "confirm")) == 2 * 3
    assert len({run.data.params["data.split_seed"] for run in runs(home, "confirm")}) == 3
    (final,) = runs(home, "final")
    assert final.info.status == "FINISHED"
    assert final.data.metrics["test/accuracy"] > 0.8
    experiment = client_of(home).get_experiment_by_name("digits")
    assert experiment is not None
    (model,) = client_of(home).search_logged_models([experiment.experiment_id])
    assert model.source_run_id == final.info.run_id
    assert not any("test/accuracy" in run.data.metrics for kind in ("trial", "confirm") for run in runs(home, kind))
    verdict = json.loads((artifacts / "verdict.json").read_text())
    (winner,) = compose.check(["preset=winner"], config_dir=str(artifacts))
    assert final.data.params["model.hidden_width"] == str(verdict["params"]["model.hidden_width"])
    assert winner.model.arguments["hidden_width"] == verdict["params"]["model.hidden_width"]
    assert list((home / "mlruns" / "checkpoints").iterdir()) == []

    again = fresh_cli("sweep", "preset=smoke")
    assert again.returncode == 0, again.stderr
    assert "trials: 8 of 8 are done" in again.stderr
    assert [len(runs(home, kind)) for kind in ("sweep", "trial", "confirm", "final")] == [1, 8, 6, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.num_trails=3"], "error: unknown key sweep.num_trails: did you mean sweep.num_trials?"),
        (["model.hidden_width=3"], "error: model.hidden_width: is swept"),
        (["-m", "sweep.seed=1,2"], "error: --multirun: not for this command"),
        (["tracking.uri=foo://bar"], "error: tracking URI foo://bar"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(
    overrides: list[str], message: str, fresh_cli: Cli, home: Path
) -> None:
    before = sorted(home.rglob("*"))
    found = fresh_cli("sweep", *overrides)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
def test_trials_that_diverge_are_recorded_and_replaced_up_to_a_cap(home: Path) -> None:
    diverging = "+sweep.space.train.learning_rate={type:categorical,choices:[0.001,1e30]}"
    overrides = [*SMOKE, diverging, "sweep.num_trials=6", "sweep.sampler=random", "sweep.max_failures=20"]
    result = sweep_here(*overrides)
    failed = result.study.trials(TrialState.FAIL)
    assert len(failed) > 0
    assert result.failures is not None
    assert result.failures.startswith(f"{len(failed)} ")
    assert all(trial.user_attrs["reason"].startswith("LossNotFiniteError: the training loss") for trial in failed)
    assert len(result.study.trials(TrialState.COMPLETE, TrialState.PRUNED)) == 6
    require_whole(home, result.study)

    with pytest.raises(UserError, match=r"trials failed, more than sweep.max_failures=0; the last: LossNotFiniteError"):
        sweep_here(*overrides, "sweep.study=t", "sweep.max_failures=0")
    assert not [run for run in runs(home, "trial") if run.info.status == "RUNNING"]
    (gave_up,) = [run for run in runs(home, "sweep") if run.info.status == "FAILED"]
    assert "more than sweep.max_failures=0" in gave_up.data.tags["reason"]
    assert gave_up.data.metrics["sweep/num_failed"] >= 1


def test_the_timeout_leaves_the_rest(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = sweep_here(*ALONE, "sweep.timeout_sec=1e-9")
    assert result.study.trials(TrialState.COMPLETE) == []
    assert re.search("sweep.timeout_sec=1e-09 .* 8 trials", caplog.text)


@pytest.mark.slow
def test_a_study_continues_to_a_higher_total(home: Path, uninterrupted_sweep: Trials) -> None:
    sweep_here(*ALONE, "sweep.num_trials=3")
    result = sweep_here(*ALONE)
    assert outcome(result.study) == uninterrupted_sweep
    assert len(runs(home, "sweep")) == 1
    with pytest.raises(
        UserError, match=r"sweep.study=s exists, .*\(sweep.space.model.hidden_width was .*high=512.* is .*high=65"
    ):
        sweep_here(*ALONE, "sweep.space.model.hidden_width.high=65")


def test_earlier_epochs_are_replayed_and_continued(home: Path) -> None:
    """Two points, so that nearly every trial is a duplicate; the longer one goes on where the shorter one ended."""
    points = ["~sweep.space.model.hidden_width", "~sweep.space.model.dropout_rate", "sweep.sampler=random"]
    epochs = ["sweep.space.train.num_epochs.low=2", "sweep.pruner=none"]
    recorder = Recorder()
    result = sweep_here(*ALONE, *points, *epochs, recorder=recorder)
    trials = result.study.trials()
    assert len(trials) == 8
    by_length: dict[int, set[float | None]] = {}
    for trial in trials:
        by_length.setdefault(trial.params["train.num_epochs"], set()).add(trial.value)
    assert all(len(values) == 1 for values in by_length.values())
    sources = [trial.user_attrs.get("source") for trial in trials]
    assert sources[0] is None
    assert all(sources[1:])
    assert {run.data.tags.get("source.run_id") for run in runs(home, "trial")} == set(sources)
    require_whole(home, result.study)


@pytest.mark.slow
def test_a_replayed_trial_is_judged_by_this_study(home: Path) -> None:
    """Trained to the end in one study, it is pruned by another whose trials are better."""
    fixed = ["~sweep.space.model.dropout_rate", "~sweep.space.train.num_epochs", "train.num_epochs=4"]
    width = "sweep.space.model.hidden_width"
    categorical = [f"{width}.type=categorical", *(f"{width}.{key}=null" for key in ("low", "high", "log"))]
    grid = [*ALONE, *fixed, *categorical, "sweep.sampler=grid", "sweep.pruner=median"]
    first = sweep_here(*grid, "sweep.study=t", "sweep.num_trials=2", f"+{width}.choices=[32,1]")
    assert first.study.trials()[-1].state is TrialState.COMPLETE
    result = sweep_here(*grid, "sweep.num_trials=6", f"+{width}.choices=[32,40,48,56,64,1]")
    last = result.study.trials()[-1]
    assert last.params == {"model.hidden_width": 1}
    assert last.state is TrialState.PRUNED
    assert last.last_step == 3
    assert last.user_attrs["source"]


@pytest.mark.slow
def test_a_baseline_without_a_rival_is_the_winner(home: Path) -> None:
    confirmed = ["preset=smoke", "sweep.study=s", "sweep.num_workers=2", "sweep.num_trials=1"]
    result = sweep_here(*confirmed, "sweep.confirm.num_seeds=2", "sweep.confirm.max_seeds=2")
    assert result.verdict is not None
    assert (result.verdict.comparisons, result.verdict.winner) == ((), None)
    (final,) = runs(home, "final")
    assert final.data.params["model.hidden_width"] == "128"
    assert final.data.params["data.split_seed"] == "0"
    assert final.data.params["train.seed"] != "0"


@pytest.mark.slow
def test_a_confirmation_that_is_stopped_after_a_look_goes_on(home: Path) -> None:
    confirmed = [
        *("preset=smoke", "sweep.num_workers=1", "sweep.num_trials=4", "sweep.pruner=none", "sweep.confirm.top_k=2"),
        *("sweep.confirm.num_seeds=2", "sweep.confirm.max_seeds=6", "sweep.confirm.min_gain=0"),
    ]
    stop = StopRequest()

    def interrupt(name: str, point: Point) -> None:
        if name.startswith("confirm") and name.endswith("#3"):
            stop.set(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        sweep_here(*confirmed, "sweep.study=s", recorder=Recorder(interrupt), stop=stop)
    verdict = sweep_here(*confirmed, "sweep.study=s").verdict
    assert verdict is not None
    assert len(verdict.looks) > 1
    assert verdict == sweep_here(*confirmed, "sweep.study=t", "tracking.experiment=elsewhere").verdict
    num_pairs = [*(one.num_pairs for one in verdict.comparisons), 2 * len(verdict.looks)]  # the last is the baseline's
    assert len(runs(home, "confirm")) == sum(num_pairs)
    assert {run.info.status for run in runs(home, "confirm")} == {"FINISHED"}


def test_two_workers_share_the_trials(home: Path) -> None:
    recorder = Recorder()
    result = sweep_here(*SMOKE, "sweep.num_workers=2", "sweep.num_trials=12", recorder=recorder)
    assert recorder.executors == {0, 1}
    assert len(result.study.trials(TrialState.COMPLETE, TrialState.PRUNED)) == 12
    require_whole(home, result.study)


@pytest.mark.slow
def test_eight_workers_lose_no_point(home: Path) -> None:
    recorder = Recorder()
    result = sweep_here(*SMOKE, "sweep.num_workers=8", "sweep.num_trials=24", "sweep.pruner=none", recorder=recorder)
    assert len(recorder.executors) == 8
    require_whole(home, result.study)
    client = client_of(home)
    histories = [
        client.get_metric_history(run.info.run_id, key) for run in runs(home, "trial") for key in run.data.metrics
    ]
    logged = sum(len(history) for history in histories)
    trials = result.study.trials()
    assert logged == 5 * sum(trial.params["train.num_epochs"] for trial in trials) + len(trials)  # and the time of each


def test_one_study_has_one_owner(home: Path) -> None:
    refused: list[str] = []

    def try_too(name: str, point: Point) -> None:
        if not refused:
            with pytest.raises(UserError) as caught:
                sweep_here(*ALONE)
            refused.append(str(caught.value))

    sweep_here(*ALONE, "sweep.num_trials=1", recorder=Recorder(try_too))
    assert f"process {os.getpid()} on " in refused[0]
    assert "the study s is in use" in refused[0]


def test_the_end_of_a_worker_is_told_in_few_words() -> None:
    assert forked.describe_death(-9).reason == "its worker died (signal 9, out of memory?)"
    assert forked.describe_death(-11).reason == "its worker died (signal 11)"
    assert forked.describe_death(1).reason == "its worker died (exit code 1)"


def test_tracking_config_of_a_sweep_is_that_of_a_run(home: Path) -> None:
    result = sweep_here(*ALONE, "sweep.num_trials=1", "tracking.experiment=elsewhere")
    client = client_of(home)
    assert client.get_experiment(client.get_run(result.parent.run_id).info.experiment_id).name == "elsewhere"


@pytest.mark.slow
def test_a_continued_study_has_the_settings_of_its_last_command(home: Path) -> None:
    sweep_here(*ALONE, "sweep.num_trials=2", "sweep.max_failures=3")
    sweep_here(*ALONE, "sweep.num_trials=3", "sweep.max_failures=4", "sweep.confirm=null")
    (parent,) = client_of(home).search_runs(["1"], "tags.kind = 'sweep'")
    settings = {**parent.data.params, **parent.data.tags}
    assert (settings["sweep.num_trials"], settings["sweep.max_failures"], settings["sweep.confirm"]) == (
        "3",
        "4",
        "null",
    )
    assert settings["sweep.metric"] == "validation/accuracy"
    store = MlflowStore(compose.compose([]).tracking)
    shown = page.render(cards.make(store, find_run.find(store, parent.info.run_id, model_name="")).page)
    assert re.search(r"sweep\.num_trials</t[dh]>\s*<td[^>]*>3<", shown)
    assert not re.search(r"sweep\.confirm</t[dh]>", shown)
