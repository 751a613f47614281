"""What a person sees: the MLflow UI and our own pages in a real browser. Its pictures are kept in test-results/."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, command
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from reports_home import CHAMPION, NAMES, client_of, run_named

from mnist_pipeline.tracking.store import UI_VIEW

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RESULTS = ROOT / "test-results"
READY_MS = 30_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    RESULTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1500, "height": 1000})
    opened.set_default_timeout(READY_MS)
    expect.set_options(timeout=READY_MS)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ui(reports_home: Path) -> Iterator[str]:
    """The address of the experiment's runs, as `ui` prints it."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["MNIST_PIPELINE_HOME"] = str(reports_home)
    arguments = command("ui", "--port", "0")
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("MLflow UI: http://127.0.0.1:")
        name, address = child.stdout.readline().split()
        assert name == "digits"
        yield address
        child.send_signal(signal.SIGINT)
        assert child.wait(15) == 0


def keep(page: Page, name: str) -> None:
    page.screenshot(path=RESULTS / f"{name}.png")


def go(page: Page, ui: str, where: str) -> None:
    address, _, _ = ui.partition("/#/")
    page.goto("about:blank")  # else only what stands behind the # changes, and the page stays what it is
    page.goto(f"{address}/#/{where}{'' if '?' in where else UI_VIEW}")


def test_the_runs_are_listed_with_the_columns_that_differ(page: Page, ui: str) -> None:
    page.goto(ui)
    for name in NAMES:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    for heading in ("alias", "validation/accuracy", "test/accuracy"):
        expect(page.get_by_text(heading, exact=True).first).to_be_visible()
    trial = page.get_by_role("link", name=re.compile("^trial 0 "))
    expect(trial).to_have_count(0)  # it stands below its parent, which is folded
    row_of(page, "sweep digits-").get_by_role("button").click()
    expect(trial).to_be_visible()
    keep(page, "runs")


def test_a_window_of_1440_pixels_shows_names_champion_results_and_seeds(page: Page, ui: str) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(ui)
    page.get_by_role("button", name="Close").last.click()  # the assistant, which takes a third of the room
    for name in NAMES:
        link = page.get_by_role("link", name=name, exact=True)
        expect(link).to_be_visible()
        assert link.evaluate("node => node.scrollWidth <= node.clientWidth + 1 || node.offsetWidth < 260")
    for column in ("tags.`alias`", "metrics.`test/accuracy`", "params.`model.hidden_width`", "params.`train.seed`"):
        box = page.locator(f'.ag-header-cell[col-id="{column}"]').bounding_box()
        assert box is not None
        assert box["x"] + box["width"] < 1440
    expect(page.get_by_text("digits-classifier@champion").first).to_be_visible()
    keep(page, "runs_1440")


def test_every_way_to_the_runs_shows_their_results(page: Page, ui: str) -> None:
    heading = page.locator('.ag-header-cell[col-id="metrics.`test/accuracy`"]')
    go(page, ui, "experiments")
    page.get_by_role("link", name="digits", exact=True).first.click()
    expect(heading).to_be_visible()
    page.get_by_role("link", name=NAMES[0], exact=True).click()
    expect(page.get_by_role("heading", name=NAMES[0])).to_be_visible()
    page.get_by_role("main").get_by_role("link", name=re.compile("^(Runs|digits)$")).first.click()
    expect(heading).to_be_visible()
    page.get_by_role("button", name="Exit shared view").click()
    expect(heading).to_have_count(0)


def row_of(page: Page, name: str) -> Locator:
    return page.locator(".ag-row").filter(has_text=name).first


def test_a_run_page_shows_its_tables_and_figures(page: Page, ui: str, reports_home: Path) -> None:
    run = run_named(reports_home, CHAMPION)
    here = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    go(page, ui, f"{here}/artifacts/evaluate/mistakes.json")
    for heading in ("image", "label", "predicted", "probability"):
        expect(page.get_by_role("columnheader").get_by_role("button", name=heading, exact=True)).to_be_visible()
    keep(page, "table")
    go(page, ui, f"{here}/artifacts/evaluate/confusion.png")
    expect(page.locator("img[src^='blob:']:visible").first).to_be_visible()
    keep(page, "figure")
    go(page, ui, here)
    expect(page.get_by_text("Test accuracy").first).to_be_visible()  # the description
    expect(page.get_by_text("digits-classifier@champion").first).to_be_visible()  # the tag
    keep(page, "run")


def test_the_page_of_a_sweep_leads_with_the_verdict_and_to_its_trials(page: Page, ui: str, reports_home: Path) -> None:
    client = client_of(reports_home)
    (sweep,) = client.search_runs(["1"], "tags.kind = 'sweep'")
    trials = client.search_runs(["1"], "tags.kind = 'trial'")
    final = client.get_run(sweep.data.tags["sweep.winner_run"])
    assert sweep.data.metrics["sweep/winner_test_accuracy"] == final.data.metrics["test/accuracy"]
    assert sweep.data.params == {}
    go(page, ui, f"experiments/{sweep.info.experiment_id}/runs/{sweep.info.run_id}")
    expect(page.get_by_text(re.compile("^The winner is ")).first).to_be_visible()
    expect(page.get_by_role("link", name=final.info.run_name).first).to_be_visible()
    link = page.get_by_role("link", name="Compare the trials")
    go(page, ui, str(link.get_attribute("href")).partition("#/")[2])
    expect(page.get_by_text(f"{len(trials)} matching runs")).to_be_visible()
    expect(page.get_by_role("link", name=sweep.info.run_name)).to_have_count(0)
    chart = page.locator("svg")
    for axis in ("model.hidden_width", "model.dropout_rate", "train.num_epochs", "validation/accuracy"):
        expect(chart.get_by_text(axis, exact=True).first).to_be_visible()
    keep(page, "trials")


@pytest.mark.slow
def test_the_registry_shows_alias_tags_and_the_model_card(
    page: Page, ui: str, reports_home: Path, report: Path
) -> None:
    go(page, ui, "models/digits-classifier/versions/1")
    expect(page.get_by_text("champion").first).to_be_visible()
    expect(page.get_by_role("cell", name="decision", exact=True)).to_be_visible()
    expect(page.get_by_role("cell", name="promoted", exact=True)).to_be_visible()
    keep(page, "registry")
    link = page.get_by_role("link", name="Model card")
    assert str(link.get_attribute("href")).startswith("#/experiments/")
    go(page, ui, str(link.get_attribute("href")).removeprefix("#/"))
    frame = page.frame_locator("iframe").first
    expect(frame.get_by_role("heading", name="Intended use and limits")).to_be_visible()
    keep(page, "model_card")


@pytest.mark.slow
def test_optunas_dashboard_shows_the_study(page: Page, reports_home: Path) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(reports_home)}
    arguments = command("dashboard", "--port", "0")
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            page.goto(child.stdout.readline().split()[2])
            page.get_by_text("digits-").first.click()
            expect(page.get_by_text("Hyperparameter Importance").first).to_be_visible()
            expect(page.locator(".plot-container").first).to_be_visible()
            keep(page, "dashboard")
        finally:
            child.kill()
    assert complaints == []


@pytest.fixture(scope="module")
def report(reports_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(reports_home, tmp_path_factory.mktemp("pages") / "report.html", "report", CHAMPION)


def made(home: Path, path: Path, *arguments: str) -> Path:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["MNIST_PIPELINE_HOME"] = str(home)
    subprocess.run(
        command(*arguments, "data=digits", "--output", str(path)), env=environment, check=True, capture_output=True
    )
    return path


@pytest.mark.parametrize(
    "what", ["report", *(pytest.param(one, marks=pytest.mark.slow) for one in ("study", "diff", "compare"))]
)
def test_a_page_opens_from_disk_without_a_network(
    what: str, browser: Browser, reports_home: Path, report: Path, tmp_path: Path
) -> None:
    client = client_of(reports_home)
    (parent,) = client.search_runs(["1"], "tags.kind = 'sweep'")
    arguments = {
        "study": ["report", parent.info.run_id], "diff": ["diff", *NAMES[1:3]], "compare": ["compare", *NAMES],
    }  # fmt: skip
    path = report if what == "report" else made(reports_home, tmp_path / f"{what}.html", *arguments[what])
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 1000})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append("net"))
    page.goto(path.as_uri())
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) >= 2
    assert min(widths) > 200
    assert complaints == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    page.screenshot(path=RESULTS / f"{what}.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 800})  # a telephone
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    printed = page.pdf(path=RESULTS / f"{what}.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= {"report": 7, "study": 6}.get(what, 9)
    assert complaints == []
    context.close()
