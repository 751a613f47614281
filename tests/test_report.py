import dataclasses
import html
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from forked import run_command
from reports_home import CHAMPION, NAMES, artifact, client_of, copy_of, run_named, uri

from mnist_pipeline.config import compose
from mnist_pipeline.reports import cards, page, reproducing, values
from mnist_pipeline.reports.page import Code, Lines, Page, Section, Table, Text
from mnist_pipeline.tracking import integrity, mlflow_reader, runs
from mnist_pipeline.tracking.mlflow_store import MlflowStore

Result = subprocess.CompletedProcess[str]


class Reader(HTMLParser):
    """What a page has: its titles, images and header cells, and whatever would need a network."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def require_good(text: str, *, num_pictures: int) -> None:
    reader = Reader(text)
    images = reader.all("img")
    assert len(images) == num_pictures
    assert all(len(image["alt"] or "") > 20 and str(image["src"]).startswith("data:image/png") for image in images)
    assert len({image["alt"] for image in images}) == num_pictures
    assert all(cell.get("scope") in ("col", "row") for cell in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert reader.all("html") == [{"lang": "en"}]
    assert not reader.all("script")
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "@media print" in text


@pytest.fixture(scope="module")
def reported(reports_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the command says of the champion, and the page."""
    output = tmp_path_factory.mktemp("report") / "report.html"
    found = report(reports_home, "champion", "data=digits", "--output", str(output))
    assert found.returncode == 0, found.stderr
    return found.stdout, output.read_text()


def report(home: Path, *arguments: str) -> Result:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["MNIST_PIPELINE_HOME"] = str(home)
    return run_command("report", *arguments, env=environment)


def test_one_file_has_everything(reported: tuple[str, str]) -> None:
    _, text = reported
    require_good(text, num_pictures=6)
    for heading in (
        *("The run", "Data", "Model", "Training", "Evaluation", "Calibration", "Mistakes"),
        *("How to reproduce it", "Intended use and limits"),
    ):
        assert re.search(rf"<h2 id=\"title-\d\">{heading}</h2>", text)
    for words in (
        "digits-classifier@champion",
        "one of 10 classes (0, 1, 2",
        "expected calibration error",
        "precision",
    ):
        assert words in text


def test_the_reproducing_command_is_the_original_one(reported: tuple[str, str], reports_home: Path) -> None:
    _, text = reported
    (line,) = re.findall(r"<code>(mnist-pipeline train .*)</code>", text)
    composed = compose.compose(line.split()[2:]).flat()
    params = run_named(reports_home, CHAMPION).data.params
    assert {key: str(value) for key, value in composed.items() if not key.startswith("tracking.")} == {
        key: value for key, value in params.items() if not key.startswith("tracking.")
    }
    digest = run_named(reports_home, CHAMPION).data.tags["result.digest"]
    assert f"result digest {digest[:32]}" in text


def test_it_is_on_the_run_and_linked_from_the_version(reported: tuple[str, str], reports_home: Path) -> None:
    said, text = reported
    run = run_named(reports_home, CHAMPION)
    client = client_of(reports_home)
    logged = Path(client.download_artifacts(run.info.run_id, "report/report.html")).read_text()
    assert logged == text
    shown_at = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/report/report.html"
    version = client.get_model_version("digits-classifier", "1")
    assert version.tags["model_card"] == shown_at
    assert version.description.startswith("Promoted on ")
    assert version.description.endswith(f"[Model card](#/{shown_at}?workflowType=machine_learning)")
    assert f"/#/{shown_at}?" in said
    again = report(reports_home, CHAMPION)
    assert again.returncode == 0
    assert client.get_model_version("digits-classifier", "1").description.count("Model card") == 1


def test_a_run_with_a_report_is_whole_still(reported: tuple[str, str], cli: Cli, reports_home: Path) -> None:
    (line,) = re.findall(r"<code>mnist-pipeline (train .*)</code>", reported[1])
    found = cli(*line.split(), MNIST_PIPELINE_HOME=str(reports_home))
    assert found.returncode == 0, found.stderr
    assert "has the same fingerprint" in found.stderr


def test_a_study_has_plots_and_verdict(reports_home: Path, tmp_path: Path) -> None:
    client = client_of(reports_home)
    (parent,) = client.search_runs(["1"], "tags.kind = 'sweep'")
    output = tmp_path / "study.html"
    found = report(reports_home, parent.data.tags["study"], "--output", str(output))
    assert found.returncode == 0, found.stderr
    text = output.read_text()
    require_good(text, num_pictures=7)
    for words in (
        "8 trials: ",
        "The winner, as a preset",
        "sweep.space.model.hidden_width",
        "95% confidence (Bonferroni)",
    ):
        assert words in text
    assert "<code>mnist-pipeline sweep preset=smoke</code>" in text


@pytest.mark.parametrize("kind", ["trial", "confirm"])
def test_a_report_on_a_trial_lacks_nothing_that_a_trial_has(kind: str, reports_home: Path, tmp_path: Path) -> None:
    client = client_of(reports_home)
    (trial,) = client.search_runs(["1"], f"tags.kind = '{kind}'", max_results=1)
    found = report(reports_home, trial.info.run_id, "--output", str(tmp_path / "trial.html"))
    assert (found.returncode, found.stderr) == (0, "")
    text = html.unescape((tmp_path / "trial.html").read_text())
    assert f"with validation accuracy {trial.data.metrics['validation/accuracy']:.4f}. Such runs are not scored" in text
    assert "missing" not in text
    assert f"git checkout {trial.data.tags['mlflow.source.git.commit']}" in text
    assert "<td>validation/loss</td>" not in text  # in the table of epochs, where it is a heading
    assert text.count(f'<td class="number">{trial.data.metrics["train/loss"]:.4f}</td>') == 1


def test_missing_artifacts_are_reported_and_the_rest_is_shown(reports_home: Path, tmp_path: Path) -> None:
    failed = report(reports_home, "a failed one", "--output", str(tmp_path / "failed.html"))
    assert failed.returncode == 1
    assert "a failed one is FAILED: " in failed.stderr
    assert "FAILED: Boom" in (tmp_path / "failed.html").read_text()


DEEP = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DAMAGES: dict[str, list[bytes]] = {
    "train/history.csv": [b"", b"epoch,train/loss\n", b"epoch,train/loss\none,two\n", b"\xff\x00"],
    "data/class_counts.csv": [b"class,train,test\n0,a,b\n", b"x\n1\n", b"\x00\xff\x1b[31m\n\xfe"],
    "data/digests.json": [b"[1]", b"3", b"{", DEEP],
    "model/untrained.json": [
        b"{}",
        b'{"loss": "a", "expected_loss": 1}',
        b'{"loss": 1%s, "expected_loss": 1}' % (b"0" * 400),
    ],
    "model/layers.csv": [b"layer\n"],
    "evaluate/confusion.csv": [b"label,0\n0,x\n", b"a,b\n1,2\n"],
    "evaluate/per_class.csv": [b"class\n0\n"],
    "evaluate/calibration.csv": [b"confidence\n"],
    "evaluate/mistakes.json": [b"{}", b'{"columns": ["image"], "data": 3}', b'{"columns": [], "data": []}', DEEP],
    "evaluate/mistakes.png": [b"not a picture", b""],
    "evaluate/predictions.parquet": [b"", b"PAR1"],
}


@pytest.mark.parametrize(("path", "damage"), [(path, damage) for path, every in DAMAGES.items() for damage in every])
def test_damaged_artifacts_are_reported_and_the_rest_is_shown(path: str, damage: bytes, reports_home: Path) -> None:
    store = MlflowStore(compose.compose([f"tracking.uri={uri(reports_home)}"]).tracking)
    whole = runs.read(store, mlflow_reader.describe(run_named(reports_home, NAMES[1])))
    run = dataclasses.replace(whole, read_bytes=lambda name: damage if name == path else whole.read_bytes(name))
    card = cards.make(store, run)
    assert len(card.problems) == 1
    assert len(card.page.sections) == 9
    assert len(page.render(card.page)) > 100_000


@pytest.mark.parametrize("damage", [DEEP, b"[1]", b"\xff"], ids=range(3))
def test_a_run_whose_list_of_files_is_damaged_is_not_whole(damage: bytes, reports_home: Path, tmp_path: Path) -> None:
    home = copy_of(reports_home, tmp_path / "copy")
    store = MlflowStore(compose.compose([f"tracking.uri={uri(home)}"]).tracking)
    run = store.client.create_run("1")
    artifact(run, "environment").mkdir(parents=True)
    artifact(run, "environment/files.json").write_bytes(b"{}")
    assert integrity.find_damage(store, run.info.run_id) == ()
    artifact(run, "environment/files.json").write_bytes(damage)
    assert integrity.find_damage(store, run.info.run_id) == ("changed: environment/files.json",)


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        *(("sweep/verdict.json", damage) for damage in (b"[]", b"{}", b"3", b"null", b'{"winner": null}', DEEP)),
        *(
            (
                "sweep/verdict.json",
                b'{"winner": "trial 1", "confidence": 0.95, "differences": [%s]}' % difference,
            )
            for difference in (
                *(b"1", b"null", b'"name mean low high"', b'["name", "mean", "low", "high"]'),
                b'{"name": "trial 1", "mean": "a", "low": 0.1, "high": 0.1}',
                b'{"name": [], "mean": 0.1, "low": 0.1, "high": 0.1}',
                b'{"name": "trial 1", "mean": 1%s, "low": 0.1, "high": 0.1}' % (b"0" * 400),
            )
        ),
        *(("config/overrides.yaml", damage) for damage in (b"{", b"a: 1", b"")),
        ("sweep/trials.parquet", b"PAR1"),
    ],
)
def test_a_damaged_study_is_reported_and_the_rest_is_shown(path: str, damage: bytes, reports_home: Path) -> None:
    store = MlflowStore(compose.compose([f"tracking.uri={uri(reports_home)}"]).tracking)
    (parent,) = client_of(reports_home).search_runs(["1"], "tags.kind = 'sweep'")
    whole = runs.read(store, mlflow_reader.describe(parent))
    card = cards.make(
        store, dataclasses.replace(whole, read_bytes=lambda name: damage if name == path else whole.read_bytes(name))
    )
    assert len(card.problems) == 1
    text = page.render(card.page)
    assert "is better than the baseline" not in text or path != "sweep/verdict.json"
    assert ("mnist-pipeline sweep" in text) == (path != "config/overrides.yaml")


def test_a_run_that_fell_back_is_reproduced_on_its_own_data() -> None:
    params = {"data.name": "digits", "data.validation_size": "300", "train.seed": "0", "tracking.uri": "x"}
    assert reproducing.deciding_overrides(params, {}) == ["data=digits", "data.validation_size=300", "train.seed=0"]
    mnist = {"data.name": "mnist", "data.fallback": "digits", "data.npz_url": "http://x"}
    assert reproducing.deciding_overrides(mnist, {}) == ["data=mnist", "data.fallback=null"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=conv", "model.filters=[8,16]", "train.optimizer=sgd", "train.optimizer.momentum=0.5"],
        ["model=mlp", "model.hidden_widths=[8]", "train.schedule=cosine", "train.early_stopping.patience=2"],
        ["train.optimizer=adamw", "train.class_weight=balanced", "train.augment.shift=0.1", "train.clip_norm=1"],
    ],
)
def test_every_option_of_a_run_is_reproduced(overrides: list[str]) -> None:
    asked = compose.compose(["data=digits", *overrides])
    params = {key: str(value) for key, value in asked.flat().items()}
    assert compose.compose(reproducing.deciding_overrides(params, {})).flat() == asked.flat()


def test_a_running_run_gets_no_logged_report(reports_home: Path, tmp_path: Path) -> None:
    client = client_of(reports_home)
    experiment = client.create_experiment(f"running {tmp_path.name}")
    run = client.create_run(experiment, run_name="still at it", tags={"kind": "train"})
    found = report(reports_home, run.info.run_id, "--output", str(tmp_path / "page.html"))
    client.set_terminated(run.info.run_id, "KILLED")
    assert found.returncode == 1
    assert "still at it is RUNNING" in found.stderr
    assert client.list_artifacts(run.info.run_id) == []  # it would count among the files that the run must have


def test_unknown_and_bad_names(reports_home: Path) -> None:
    found = report(reports_home, NAMES[0] + "7")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert f"did you mean {NAMES[0]}?" in found.stderr
    assert report(reports_home, *NAMES[:2]).returncode == 2
    assert report(reports_home, NAMES[0], "--output", "/nowhere/x.html").returncode == 2


def test_without_a_place_it_goes_to_the_reports(reports_home: Path) -> None:
    run_id = run_named(reports_home, NAMES[0]).info.run_id
    found = report(reports_home, NAMES[0])
    assert found.returncode == 0, found.stderr
    place = reports_home / "mlruns" / "reports" / f"report-{run_id[:8]}.html"
    assert f"written             {place}" in found.stdout
    require_good(place.read_text(), num_pictures=6)


def test_text_never_becomes_markup() -> None:
    evil = "<script>alert(1)</script>\"'>"
    items: tuple[Any, ...] = (
        Text(evil), Lines({evil: evil}), Code(evil), Table(evil, (evil,), ((evil,),), (False,)),
    )  # fmt: skip
    text = page.render(Page(title=evil, lead=evil, sections=(Section(evil, items),)))
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") >= 11


def test_an_interrupted_writing_leaves_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.html"
    place.write_text("the earlier one")

    def fail(self: Path, *arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(Exception, match=r"page\.html cannot be written \(No space left on device\)"):
        page.write(Page("a", "b", ()), place)
    monkeypatch.undo()
    assert place.read_text() == "the earlier one"
    assert list(tmp_path.iterdir()) == [place]


def test_a_long_list_of_classes_is_complete_and_one_with_commas_is_quoted() -> None:
    assert values.list_names([str(number) for number in range(100)]).count(", ") == 99
    assert values.list_names(["a, b", "c"]) == '"a, b", "c"'
    assert values.list_names(["", "c"]) == '"", "c"'


def test_names_of_classes_are_read_as_text(reports_home: Path) -> None:
    store = MlflowStore(compose.compose([f"tracking.uri={uri(reports_home)}"]).tracking)
    whole = runs.read(store, mlflow_reader.describe(run_named(reports_home, NAMES[1])))
    content = b"class,train\n01,5\nNone,6\n"
    run = dataclasses.replace(whole, read_bytes=lambda name: content)
    table = run.read_table("data/class_counts.csv", columns=["class"])
    assert list(table["class"]) == ["01", "None"]
    assert list(table["train"]) == [5, 6]
