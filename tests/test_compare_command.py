"""The command compare: which runs it finds, and what it shows and writes."""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import Cli
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from reports_home import CHAMPION, NAMES, client_of, run_named

from mnist_pipeline.registry import settings
from mnist_pipeline.reports import select
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.tracking.mlflow_store import MlflowStore


def hand_made(home: Path, name: str, *, experiment: str = "mnist", status: str = "FINISHED", **tags: str) -> str:
    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    known = client.get_experiment_by_name(experiment)
    experiment_id = known.experiment_id if known else client.create_experiment(experiment)
    made = client.create_run(experiment_id, run_name=name, tags={"kind": "train", "data.digest": "d", **tags})
    metrics = [Metric("validation/accuracy", 0.9, 1, 1)]
    client.log_batch(made.info.run_id, metrics=metrics, params=[Param("data.name", "mnist"), Param("train.seed", name)])
    if status != "RUNNING":
        client.set_terminated(made.info.run_id, status)
    time.sleep(0.002)  # each a later start
    return str(made.info.run_id)


def selected(home: Path, *named: str, condition: str | None = None) -> select.Selection:
    where = settings.read([f"tracking.uri=sqlite:///{home}/mlruns/mlflow.db"])
    return select.select(MlflowStore(where.tracking), where, named, condition=condition)


def names(selection: select.Selection) -> set[str]:
    return {run.name for run in selection.runs}


def test_without_names_the_trained_runs_on_the_newest_data_are_meant(home: Path) -> None:
    hand_made(home, "old", **{"data.digest": "other"})
    hand_made(home, "a")
    hand_made(home, "part of a sweep", kind="trial")
    hand_made(home, "cut short", kind="trial", **{"trial.state": "PRUNED"})
    hand_made(home, "b", kind="final")
    hand_made(home, "broken", status="FAILED")
    hand_made(home, "busy", status="RUNNING")
    found = selected(home)
    assert names(found) == {"a", "b"}
    assert found.problems == ()  # nobody asked for the others
    assert found.notes[0] in ("left out: 1 RUNNING, 1 FAILED", "left out: 1 FAILED, 1 RUNNING")
    assert "left out: 1 on other data" in found.notes[1]
    trials = selected(home, condition="tags.kind = 'trial'")
    assert names(trials) == {"part of a sweep"}
    assert "left out: 1 pruned trial" in trials.notes


def test_runs_of_the_only_experiment_are_compared(cli: Cli, reports_home: Path) -> None:
    found = cli("compare", "--top", "1", MNIST_PIPELINE_HOME=str(reports_home), COLUMNS="160")  # and not data=digits
    assert found.returncode == 0, found.stderr
    assert "data.name=digits" in found.stdout


def test_a_narrow_terminal_keeps_the_important_columns(cli: Cli, reports_home: Path) -> None:
    found = cli("compare", "data=digits", *NAMES, MNIST_PIPELINE_HOME=str(reports_home), COLUMNS="80")
    assert "too narrow for: " in found.stdout
    assert found.stdout.count("± ") >= 2
    assert max(map(len, found.stdout.split("An interval")[0].splitlines())) <= 80


def test_named_runs_that_cannot_be_compared_are_reported(home: Path) -> None:
    first = hand_made(home, "first")
    hand_made(home, "second")
    hand_made(home, "broken", status="FAILED", reason="Boom\nand more")
    hand_made(home, "busy", status="RUNNING")
    hand_made(home, "elsewhere", experiment="mine")
    hand_made(home, "other data", **{"data.digest": "other"})
    found = selected(home, first, "second", "broken", "busy", "elsewhere", "other data", "secnd", "champion", "7")
    assert names(found) == {"first", "second"}
    told = "\n".join(found.problems)
    for words in (
        "broken is FAILED: it has no result, Boom",
        "busy is RUNNING",
        "is in another experiment than first",
        "is on other data than first",
        "secnd: no run has this id or name; did you mean second?",
        "champion: no such alias",
        "has no version 7",
    ):
        assert words in told
    assert len(found.problems) == 7
    assert all("\n" not in problem for problem in found.problems)


def test_an_ambiguous_name_asks_for_an_id_or_its_prefix(home: Path) -> None:
    ids = [hand_made(home, "twice"), hand_made(home, "twice")]
    hand_made(home, "twice", status="FAILED")  # does not count while there are finished ones
    with pytest.raises(UserError, match="twice: 2 runs have this name; give the id of one") as told:
        selected(home, "twice")
    assert all(run_id in str(told.value) for run_id in ids)
    (run,) = selected(home, ids[0][:8]).runs
    assert run.run_id == ids[0]


def test_names_with_quotes_are_found(home: Path) -> None:
    hand_made(home, "it's")
    hand_made(home, 'a "good" one')
    assert names(selected(home, "it's", 'a "good" one')) == {"it's", 'a "good" one'}
    hand_made(home, "both'\"")
    assert names(selected(home, "both'\"")) == {"both'\""}
    with pytest.raises(UserError, match="no run has this id or name"):
        selected(home, "'\"")


def test_a_name_may_look_like_an_alias_or_a_number(home: Path) -> None:
    hand_made(home, "me@home")
    hand_made(home, "7")
    assert names(selected(home, "me@home", "7")) == {"me@home", "7"}
    with pytest.raises(UserError, match="@champion: no such alias"):
        selected(home, "@champion")
    with pytest.raises(UserError, match="x/y@champion: no such alias"):
        selected(home, "x/y@champion")


def test_a_deleted_run_is_reported(home: Path) -> None:
    run_id = hand_made(home, "gone")
    MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db").delete_run(run_id)
    for named in ("gone", run_id):
        with pytest.raises(UserError, match=f"{named} was deleted: restore it .*{run_id}"):
            selected(home, named)


def test_runs_of_other_programs_are_left_out(home: Path) -> None:
    hand_made(home, "ours")
    hand_made(home, "foreign", kind="")
    found = selected(home, "ours", "foreign")
    assert names(found) == {"ours"}
    assert "was made by another program: left out" in found.problems[0]


def test_nothing_to_compare_is_reported(home: Path) -> None:
    with pytest.raises(UserError, match="there is no experiment mnist"):
        selected(home)
    hand_made(home, "broken", status="FAILED")
    with pytest.raises(UserError, match="nothing to compare; left out: 1 FAILED"):
        selected(home)


def test_a_filter_that_mlflow_does_not_understand_is_bad_usage(home: Path) -> None:
    hand_made(home, "a")
    with pytest.raises(ConfigError, match=r"--filter accuracy > 1: "):
        selected(home, condition="accuracy > 1")


def compare_here(cli: Cli, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return cli("compare", "data=digits", *arguments, MNIST_PIPELINE_HOME=str(home), COLUMNS="160")


def test_the_terminal_shows_the_best_its_lead_and_the_interval(cli: Cli, reports_home: Path) -> None:
    found = compare_here(cli, reports_home)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in NAMES)
    assert "Note: left out: 1 FAILED." in found.stdout
    found = compare_here(cli, reports_home, *NAMES)
    assert "hidden width" in found.stdout
    assert "batch size" not in found.stdout
    line = next(line for line in found.stdout.splitlines() if line.startswith(f" {CHAMPION}"))
    assert "champion" in line
    assert "points (95% interval" in found.stdout.splitlines()[-1]


def test_a_study_stands_for_its_complete_trials(cli: Cli, reports_home: Path) -> None:
    client = client_of(reports_home)
    experiment = client.get_experiment_by_name("digits")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    found = compare_here(cli, reports_home, parent.data.tags["study"], "--top", "3")
    assert found.returncode == 0, found.stderr
    rows = [
        line for line in found.stdout.split("Seeds together")[0].splitlines() if line.startswith((" trial", " confirm"))
    ]
    assert len(rows) == 3
    assert "Ahead of" in found.stdout  # the confirmation has seeds in common


def test_tables_and_figures_are_written(cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    csv, parquet, markdown, page = (tmp_path / f"table.{ending}" for ending in ("csv", "parquet", "md", "html"))
    assert compare_here(cli, reports_home, "--output", str(csv), "--figures", str(tmp_path / "figures")).returncode == 0
    table = pd.read_csv(csv)
    assert len(table) >= len(NAMES)
    splits = [split["validation/accuracy"] for _, split in table.groupby("data.split_seed", sort=False)]
    assert all(accuracies.is_monotonic_decreasing for accuracies in splits)
    assert [len(split) for split in splits] == sorted(map(len, splits), reverse=True)
    assert set(table.loc[table["name"].isin(NAMES), "model.hidden_width"]) == {16, 48}
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"accuracy_by_hidden_width.png", "accuracy_by_training_time_in_seconds.png"} <= drawn
    assert (
        compare_here(cli, reports_home, *NAMES, "--output", str(parquet), "--group-by", "hidden_width").returncode == 0
    )
    groups = pd.read_parquet(parquet)
    assert sorted(groups["model.hidden_width"]) == [16, 48]
    assert list(groups["num_runs"]) == [2, 2]
    assert compare_here(cli, reports_home, *NAMES, "--top", "1", "--output", str(markdown)).returncode == 0
    text = markdown.read_text()
    assert "| name" in text
    assert sum(name in text for name in NAMES) == 1
    assert compare_here(cli, reports_home, *NAMES, "--output", str(page)).returncode == 0
    assert page.read_text().count('src="data:image/png;base64,') >= 2
    assert not list(tmp_path.glob(".*.unfinished"))


def test_bad_names_are_reported_and_the_rest_is_shown(cli: Cli, reports_home: Path) -> None:
    found = compare_here(cli, reports_home, NAMES[0], "digits-dense-w16-e3-s7", "a failed one")
    assert found.returncode == 1
    assert NAMES[0] in found.stdout
    unknown, failed = found.stderr.splitlines()
    assert unknown.startswith("error: digits-dense-w16-e3-s7: ")
    assert unknown.removesuffix("?").split()[-1] in NAMES[:2]  # both names are equally near
    assert failed.startswith("error: a failed one is FAILED")
    assert "Boom" in failed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "argument --top: 0: expected a whole number of at least 1"),
        (
            ["--output", "table.xlsx"],
            "--output table.xlsx: expected a name that ends in .csv or .parquet or .md or .html",
        ),
        (["--output", "no/where.csv"], "--output no/where.csv: there is no folder no"),
        ([""], "is empty"),
        (["model.hidden_width=3"], "model"),
        (["--group-by", "colour"], "--group-by colour: not a param"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str, cli: Cli, reports_home: Path) -> None:
    found = compare_here(cli, reports_home, *arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_an_unwritable_folder_is_reported(cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for place in ("/dev/full/table.csv", "/proc/table.csv", str(tmp_path / "loop.csv")):
        found = compare_here(cli, reports_home, "--output", place)
        assert found.returncode == 2
        assert found.stderr.startswith(f"error: --output {place}: ")
    found = compare_here(cli, reports_home, "--figures", "/proc/figures")
    assert found.returncode == 2
    assert found.stderr.startswith("error: --figures /proc/figures: cannot be written there")


@pytest.mark.parametrize(
    "arguments",
    [
        ["diff", NAMES[0], NAMES[1]],
        *(pytest.param(words, marks=pytest.mark.slow) for words in (["compare"], ["report", NAMES[1]])),
    ],
)
def test_tensorflow_is_not_imported(arguments: list[str], reports_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_PIPELINE_HOME", str(reports_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys; from mnist_pipeline import cli; "
        f"sys.argv = ['mnist-pipeline', *{[*arguments, 'data=digits']!r}]; assert cli.main() == 0; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_store_yet(cli: Cli, tmp_path: Path) -> None:
    found = cli("compare", MNIST_PIPELINE_HOME=str(tmp_path / "new"))
    assert found.returncode == 1
    assert "there are no runs yet" in found.stderr
    assert not (tmp_path / "new").exists()


def test_the_run_of_the_champion_says_so(reports_home: Path) -> None:
    assert run_named(reports_home, CHAMPION).data.tags["alias"] == "digits-classifier@champion"
