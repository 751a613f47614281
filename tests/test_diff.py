import dataclasses
import decimal
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Cli
from reports_home import CHAMPION, NAMES, artifact, client_of, copy_of, run_named, uri

from mnist_pipeline.registry.comparison import Comparison
from mnist_pipeline.reports import diff as comparing
from mnist_pipeline.reports import diff_page
from mnist_pipeline.reports.diff import Diff
from mnist_pipeline.reports.page import Picture, Text
from mnist_pipeline.tracking.record import RunRecord

PREDICTIONS = pd.DataFrame(
    {
        "index": range(5),
        "label": [0, 1, 1, 0, 0],
        "predicted": [0, 1, 0, 1, 0],
        "probability_odd": [0.9, 0.4, 0.7, 0.2, 0.8],
        "probability_even": [0.1, 0.6, 0.3, 0.8, 0.2],
    }
)
OTHER = PREDICTIONS.assign(
    predicted=[0, 0, 1, 0, 0],
    probability_odd=[0.9, 0.51, 0.1, 0.6, 0.8],
    probability_even=[0.1, 0.49, 0.9, 0.4, 0.2],
)


def past(name: str, predictions: pd.DataFrame | None = PREDICTIONS, /, **changes: str) -> RunRecord:
    tags = {"kind": "train", "data.digest": "d", "mlflow.source.git.commit": "abc", "git.dirty": "false"}
    files = {
        "environment/versions.json": b'{"keras": "3.1", "numpy": "' + changes.pop("numpy", "2.1").encode() + b'"}',
        "data/digests.json": b'{"dataset": "d", "test": "t"}',
        "train/history.csv": b"epoch,train/loss,train/accuracy\n1,0.5,0.8\n2,0.4,0.9\n",
        "environment/code.patch": changes.pop("patch", "").encode(),
    }
    if predictions is not None:
        buffer = io.BytesIO()
        predictions.to_parquet(buffer)
        files["evaluate/predictions.parquet"] = buffer.getvalue()

    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return RunRecord(
        run_id=name * 32,
        experiment_id=changes.pop("experiment_id", "1"),
        name=name,
        status=changes.pop("status", "FINISHED"),
        address="",
        started_ms=0,
        params={"train.seed": "0", "model.hidden_width": changes.pop("width", "32")},
        metrics={"test/accuracy": 0.5, "time/train_sec": 1.0},
        tags={**tags, **changes},
        read_bytes=read,
    )


def compared(a: RunRecord, b: RunRecord) -> Diff:
    return comparing.diff(comparing.read_side("A", a), comparing.read_side("B", b))


def test_only_differences_are_shown() -> None:
    found = compared(past("a"), past("b", OTHER, width="64", numpy="2.2"))
    assert found.config.to_dict("records") == [{"param": "model.hidden_width", "A": "32", "B": "64"}]
    assert found.versions is not None
    assert found.versions.to_dict("records") == [{"package": "numpy", "A": "2.1", "B": "2.2"}]
    assert found.data.empty
    assert found.problems == ()
    assert list(found.metrics["B - A"]) == [0, 0]


def test_the_images_on_which_the_two_disagree() -> None:
    found = compared(past("a"), past("b", OTHER))
    assert found.comparison == Comparison(num_images=5, num_gained=2, num_lost=1)
    assert found.disagreements.to_dict("records") == [
        {
            "image": 2,
            "label": "even",
            "A": "odd",
            "A probability": 0.7,
            "B": "even",
            "B probability": 0.9,
            "right": "B",
        },
        {"image": 3, "label": "odd", "A": "even", "A probability": 0.8, "B": "odd", "B probability": 0.6, "right": "B"},
        {
            "image": 1,
            "label": "even",
            "A": "even",
            "A probability": 0.6,
            "B": "odd",
            "B probability": 0.51,
            "right": "A",
        },
    ]
    text = diff_page.describe(found)
    assert "B gets 1 more of 5 test images right than A: +20.00 points" in text
    assert "p = 1 (exact McNemar test, two-sided)" in text
    assert "It spends no budget" in text
    backwards = diff_page.describe(compared(past("b", OTHER), past("a")))
    assert "A gets 1 more of 5 test images right than B: +20.00 points" in backwards


def test_a_run_and_itself_agree() -> None:
    found = compared(past("a"), past("a"))
    assert found.disagreements.empty
    assert diff_page.describe(found) == "A and B are the same run."
    page = diff_page.lay_out(found, {}, None)
    assert page.sections[-1].items[-1] == Text("They agree on every image.")


def test_each_missing_part_is_one_line_and_the_rest_is_shown() -> None:
    found = compared(
        past("a", experiment_id="1", status="RUNNING"), past("b", None, experiment_id="2", **{"data.digest": "e"})
    )
    facts = ("A (a) is RUNNING", "evaluate/predictions.parquet", "different experiments", "different data")
    assert len(found.problems) == len(facts)
    assert all(fact in problem for fact, problem in zip(facts, found.problems, strict=True))
    assert found.comparison is None
    page = diff_page.lay_out(found, {}, None)
    assert [section.title for section in page.sections][-1] == "Images on which they disagree"
    assert "cannot be compared" in page.lead


@pytest.mark.parametrize(
    "damaged",
    [
        pd.DataFrame({"nothing": [1]}),
        PREDICTIONS[:0],
        PREDICTIONS.assign(predicted=[0, 1, 99, 1, 0]),
        PREDICTIONS.assign(predicted=[0.0, 1.0, math.nan, 1.0, 0.0]),
        PREDICTIONS.assign(index=[0, 1, 2, 3, 10_000]),
        PREDICTIONS.assign(probability_even=["a"] * 5),
        PREDICTIONS.drop(columns=["probability_odd", "probability_even"]),
    ],
)
def test_damaged_predictions_are_missing_ones(damaged: pd.DataFrame) -> None:
    found = compared(past("a"), past("b", damaged))
    assert found.comparison is None
    assert found.problems == ("B: b, of kind train, has no evaluate/predictions.parquet that can be read",)


_DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
_HISTORIES = {
    "empty": b"",
    "binary": b"\x00\xff\x1f\x8b" * 99,
    "other columns": b"a,b\n1,2\n",
    "no rows": b"epoch,train/loss,train/accuracy\n",
    "text": b"epoch,train/loss,train/accuracy\n1,much,0.8\n",
    "text in another column": b"epoch,train/loss,train/accuracy,validation/accuracy\n1,0.5,0.8,most\n",
    "a gap": b"epoch,train/loss,train/accuracy\n1,0.5,\n",
    "an epoch twice": b"epoch,train/loss,train/accuracy\n1,0.5,0.8\n1,0.4,0.9\n",
    "infinite": b"epoch,train/loss,train/accuracy\n1,1e999,0.8\n",
    "huge": b"epoch,train/loss,train/accuracy\n1,0.5,1e308\n2,-1e308,0.8\n",
    "huge epoch": b"epoch,train/loss,train/accuracy\n" + b"9" * 400 + b",0.5,0.8\n",
    "too many cells": b"epoch,train/loss,train/accuracy\n1,0.5,0.8,7,7\n",
}


@pytest.mark.parametrize("damage", _HISTORIES.values(), ids=_HISTORIES)
def test_a_damaged_history_is_reported_and_the_rest_is_shown(damage: bytes) -> None:
    found = compared(damaged_run("a", "train/history.csv", damage), past("b", OTHER))
    assert found.problems == ("A: a, of kind train, has no train/history.csv that can be read",)
    page = diff_page.lay_out(found, {}, None)
    (picture,) = [item for item in page.sections[5].items if isinstance(item, Picture)]
    assert "B ends at accuracy 0.9000" in picture.alt
    assert "A ends" not in picture.alt
    assert found.comparison == Comparison(num_images=5, num_gained=2, num_lost=1)


@pytest.mark.parametrize("path", ["environment/versions.json", "data/digests.json"])
@pytest.mark.parametrize("damage", [b"[1]", b'{"keras": [1]}', b"\xff", b"1e999", _DEEP], ids=range(5))
def test_damaged_json_is_reported_in_one_line(path: str, damage: bytes) -> None:
    found = compared(damaged_run("a", path, damage), past("b"))
    assert found.problems == (f"A: a, of kind train, has no {path} that can be read",)
    assert len(diff_page.lay_out(found, {}, None).sections) == 7


_TABLES = {
    "nullable": PREDICTIONS.astype({"label": "Int64"}),
    "text": PREDICTIONS.astype({"probability_odd": str}),
    "lists": PREDICTIONS.assign(label=pd.Series([[0]] * 5, dtype=object)),
    "decimals": PREDICTIONS.assign(probability_odd=pd.Series([decimal.Decimal(1)] * 5, dtype=object)),
}


@pytest.mark.parametrize("table", _TABLES.values(), ids=_TABLES)
def test_predictions_of_odd_types_are_reported_in_one_line(table: pd.DataFrame) -> None:
    found = compared(past("a"), past("b", table))
    assert found.problems == ("B: b, of kind train, has no evaluate/predictions.parquet that can be read",)


def test_predictions_of_other_classes_cannot_be_compared() -> None:
    other = OTHER.rename(columns={"probability_even": "probability_$\\bad$"})
    found = compared(past("a"), past("b", other))
    (problem,) = found.problems
    assert "different classes" in problem
    assert (found.comparison, found.disagreements.empty) == (None, True)


def test_names_of_classes_are_drawn_as_they_are() -> None:
    names = {"probability_even": "probability_$\\bad$", "probability_odd": "probability_\u202e\x1b"}
    found = compared(past("a", PREDICTIONS.rename(columns=names)), past("b", OTHER.rename(columns=names)))
    images = np.zeros((5, 28, 28), np.uint8)
    last = diff_page.lay_out(found, {}, images).sections[-1]
    assert any(isinstance(item, Picture) for item in last.items)


def damaged_run(name: str, path: str, damage: bytes) -> RunRecord:
    whole = past(name, OTHER if name == "b" else PREDICTIONS)
    return dataclasses.replace(whole, read_bytes=lambda wanted: damage if wanted == path else whole.read_bytes(wanted))


def test_unknown_facts_are_not_called_equal() -> None:
    unknown = dataclasses.replace(past("b"), tags={"kind": "train"}, read_bytes=lambda path: b"[1]")
    found = compared(past("a"), unknown)
    assert found.comparison is None
    assert any("data of a run is unknown" in problem for problem in found.problems)
    texts = [str(section.items) for section in diff_page.lay_out(found, {}, None).sections]
    assert "unknown" in texts[2]
    assert "unknown" in texts[3]
    assert "unknown" in texts[4]


def test_another_validation_split_is_other_data_to_rank_by() -> None:
    other = dataclasses.replace(past("b"))
    files = {"data/digests.json": b'{"dataset": "d", "test": "t", "validation": "v"}'}
    other = dataclasses.replace(other, read_bytes=lambda path: files.get(path) or past("b").read(path))
    assert compared(past("a"), other).data.to_dict("records") == [{"of": "validation", "A": "", "B": "v"}]


def test_the_code_of_both_is_shown() -> None:
    changed = {"git.dirty": "true", "git.patch": "kept", "patch": "diff --git a/src/x b/src/x\n+one\n"}
    text = str(diff_page.lay_out(compared(past("a"), past("b", **changed)), {}, None).sections[3])
    assert "The same commit, abc" in text
    assert "B (b) ran with uncommitted changes (environment/code.patch, 2 lines)" in text
    assert "+one" in text
    same = str(diff_page.lay_out(compared(past("a", **changed), past("b", **changed)), {}, None).sections[3])
    assert "Both ran with the same uncommitted changes" in same
    lost = {"git.dirty": "true", "git.patch": "lost"}
    text = str(diff_page.lay_out(compared(past("a"), past("b", **lost)), {}, None).sections[3])
    assert "B (b) ran with uncommitted changes that were not kept" in text
    other = str(diff_page.lay_out(compared(past("a"), past("b", **{"mlflow.source.git.commit": "def"})), {}, None))
    assert "git diff abc def -- src conf" in other


def test_the_curves_are_drawn_over_each_other_with_a_text_for_those_who_do_not_see_them() -> None:
    page = diff_page.lay_out(compared(past("a"), past("b", OTHER)), {}, None)
    (picture,) = [item for item in page.sections[5].items if isinstance(item, Picture)]
    assert "A ends at accuracy 0.9000 after epoch 2; B ends at accuracy 0.9000 after epoch 2" in picture.alt
    assert picture.read().startswith(b"\x89PNG")


# From the command to the page


@pytest.mark.parametrize("champion", ["champion", "digits-classifier@champion", "1", CHAMPION])
def test_a_and_b_may_be_given_in_many_ways(champion: str, cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    other = run_named(reports_home, NAMES[0]).info.run_id[:10]
    found = cli(
        "diff", champion, other, "data=digits", "--output", str(page), MNIST_PIPELINE_HOME=str(reports_home)
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert f"{CHAMPION} " in found.stdout
    assert "digits-classifier@champion" in found.stdout
    assert "model.hidden_width   48   16" in found.stdout
    assert "It spends no budget" in found.stdout
    assert f"written             {page}" in found.stdout
    assert page.read_text().count('src="data:image/png;base64,') == 2  # curves and images


def test_a_trial_has_its_sweeps_code_and_versions_and_no_predictions(cli: Cli, reports_home: Path) -> None:
    client = client_of(reports_home)
    (trial,) = client.search_runs(["1"], "tags.kind = 'trial'", max_results=1)
    found = cli("diff", NAMES[0], trial.info.run_id, MNIST_PIPELINE_HOME=str(reports_home))
    assert (found.returncode, found.stderr) == (0, "")
    assert "A run of a sweep is not scored on the test split" in found.stdout
    assert "model.hidden_width" in found.stdout
    assert "The same commit, " in found.stdout
    versions = found.stdout.partition("\nVersions\n")[2]
    assert versions.startswith("The same.")
    assert (reports_home / "mlruns" / "reports").is_dir()


@pytest.mark.slow
def test_a_budget_is_not_spent_by_looking(cli: Cli, reports_home: Path) -> None:
    def history() -> str:
        return cli("history", "data=digits", MNIST_PIPELINE_HOME=str(reports_home)).stdout

    before = history()
    assert cli("diff", "champion", NAMES[0], "data=digits", MNIST_PIPELINE_HOME=str(reports_home)).returncode == 0
    assert history() == before


def test_damaged_files_are_reported_and_the_rest_is_shown(cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    home = copy_of(reports_home, tmp_path / "copy")
    runs = [run_named(home, name) for name in NAMES[:2]]
    for number, (run, history) in enumerate(zip(runs, (b"epoch,train/loss\n1,\x1b[31mmuch\n", b""), strict=True)):
        artifact(run, "train/history.csv").write_bytes(history)
        path = artifact(run, "evaluate/predictions.parquet")
        table = pd.concat([pd.read_parquet(path)] * 2, ignore_index=True)  # more images than the test split has
        table.assign(index=np.arange(len(table), dtype=np.int32), predicted=np.int32(number)).to_parquet(path)
    found = cli("diff", *(run.info.run_id for run in runs), f"tracking.uri={uri(home)}", MNIST_PIPELINE_HOME=str(home))
    assert found.returncode == 1
    assert [line.partition(":")[0] for line in found.stderr.splitlines()] == ["error"] * 3
    assert f"A: {NAMES[0]}, of kind train, has no train/history.csv that can be read" in found.stderr
    assert f"B: {NAMES[1]}, of kind train, has no train/history.csv that can be read" in found.stderr
    assert "the test split has 360 images, but there are predictions for 720" in found.stderr
    assert "they disagree on    720" in found.stdout
    assert "written" in found.stdout


def test_without_the_data_the_pictures_alone_are_missing(cli: Cli, reports_home: Path, tmp_path: Path) -> None:
    # Digits are always at hand: so a run that says it was scored on other ones.
    home = tmp_path / "copy"
    for _ in range(3):  # another test may add a report to the original meanwhile, which the copy then lacks
        shutil.copytree(reports_home, home)
        if cli("doctor", "--fix", MNIST_PIPELINE_HOME=str(home)).returncode == 0:
            break
        shutil.rmtree(home)
    client = client_of(home)
    for name in NAMES[:2]:
        client.set_tag(run_named(home, name).info.run_id, "data.test_digest", "0" * 64)
    found = cli("diff", *NAMES[:2], MNIST_PIPELINE_HOME=str(home))
    assert found.returncode == 1
    assert "the images themselves cannot be shown: the test split found here" in found.stderr
    assert "they disagree on" in found.stdout


@pytest.mark.parametrize("arguments", [[NAMES[0]], [*NAMES[:3]], [NAMES[0], ""], [*NAMES[:2], "--output", "x.pdf"]])
def test_bad_usage_is_one_line(arguments: list[str], cli: Cli, reports_home: Path) -> None:
    found = cli("diff", *arguments, MNIST_PIPELINE_HOME=str(reports_home))
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
