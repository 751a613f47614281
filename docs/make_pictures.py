"""Makes the pictures and the terminal output in the documents from real runs: `make pictures`.

Two widths are trained with three seeds each, a sweep is made around the baseline, the best run is promoted. What people
then see is photographed: figures as the runs logged them, pages in a browser. What the commands print goes into the
documents, between marks, so that a picture and the text beside it are of the same runs.

It needs MNIST and Chromium, and takes some minutes.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from mnist_pipeline.cli.errors import print_error
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.store import sqlite_uri

FOLDER = Path(__file__).parent
NUM_COLOURS = 128
READY_MS = 30_000
WIDTH = 110
SEEDS = [f"mnist-dense-{width}e9-s{seed}" for width in ("", "w32-") for seed in (0, 1, 2)][1:]


def main() -> int:
    """Make all pictures; return the exit code."""
    try:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            raise UserError("Chromium is not here: install it (apt-get install chromium) to make the pictures")
        with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as home:
            make(Path(home), chromium)
    except UserError as error:
        print_error(error)
        return error.exit_code
    return 0


def make(home: Path, chromium: str) -> None:
    """Make the runs, then the pictures of them."""
    told = run(home, "train", "data.fallback=null")
    quote(FOLDER.parent / "README.md", "train", "$ make train\n" + abridge(told))
    run(home, "train", "-m", "data.fallback=null", "model.hidden_width=32,128", "train.seed=0,1,2")
    told = run(home, "sweep", "data.fallback=null", "sweep.study=around-the-baseline")
    quote(FOLDER / "sweeping.md", "sweep", "$ make sweep\n" + select(told, from_="trials   ", to="winner's test"))
    told = run(home, "compare", "mnist-dense-e9-s0", *SEEDS)
    quote(FOLDER / "comparing.md", "compare", "$ make compare\n" + select(told, from_="Runs", to=None))
    run(home, "promote", "mnist-dense-e9-s0")
    champion, sweep = artifacts(home, "mnist-dense-e9-s0"), artifacts(home, "sweep around-the-baseline")
    paste(
        [
            [champion / "train" / "learning_curves.png"],
            [champion / "evaluate" / "confusion.png", champion / "evaluate" / "mistakes.png"],
        ],
        FOLDER / "run.png",
    )
    plots = sweep / "sweep"
    paste(
        [[plots / "parallel_coordinates.png"], [plots / "importances.png", plots / "verdict.png"]], FOLDER / "sweep.png"
    )
    pages = {
        "compare": ["compare", "--filter", "tags.kind = 'train'"],
        "diff": ["diff", "mnist-dense-w32-e9-s0", "champion"],
        "report": ["report", "champion"],
    }
    with sync_playwright() as driver, started_ui(home) as address:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        photograph_ui(browser, address)
        for name, arguments in pages.items():
            run(home, *arguments, "--output", str(home / f"{name}.html"))
            page = browser.new_page(viewport={"width": 1000, "height": 1150})
            page.goto((home / f"{name}.html").as_uri())
            if name == "diff":  # its tables are more of the same: what is special stands at the end
                page.evaluate("document.querySelector('#section-6').scrollIntoView()")
            keep(page, name)
        browser.close()


def run(home: Path, *arguments: str) -> str:
    """Run a command of ours in the home; return what it prints.

    Raises:
        UserError: It fails.
    """
    print(f"$ mnist-pipeline {' '.join(arguments)}", flush=True)
    done = subprocess.run(
        [*program(), *arguments],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"mnist-pipeline {arguments[0]} failed: no picture is made\n{done.stdout}")
    return done.stdout


def select(told: str, *, from_: str, to: str | None) -> str:
    """Return the lines from the first that starts with `from_` to the last that starts with `to`, or to the end."""
    lines = [part for line in told.rstrip().splitlines() for part in wrap(line)]
    first = min(number for number, line in enumerate(lines) if line.startswith(from_))
    last = len(lines) - 1 if to is None else max(number for number, line in enumerate(lines) if line.startswith(to))
    return "\n".join(lines[first : last + 1])


def abridge(told: str) -> str:
    """Return what `train` prints without the epochs in the middle, the first predictions and the places of files."""
    kept = []
    for line in told.splitlines():
        epoch = re.match(r"train +epoch (\d+)/(\d+)", line)
        if epoch and epoch[1] == "2":
            kept.append("...")
        elif re.match(r"(data|model) .*:|test|validation|training|result", line) or (
            epoch and epoch[1] in ("1", epoch[2])
        ):
            kept.append(re.sub(r"(, from .*|  \d+ s left)$", "", line))
    return "\n".join(kept)


def wrap(line: str) -> list[str]:
    """Return a line as one that fits, or as several; a table's lines fit."""
    return [line.rstrip()] if len(line.rstrip()) <= WIDTH else textwrap.wrap(line, WIDTH)


def quote(page: Path, mark: str, text: str) -> None:
    """Write what a command has printed into a page, between its marks."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}```console\n{text}\n```\n{end}{after}", encoding="utf-8")


def program() -> list[str]:
    """Return the command."""
    return [str(Path(sys.executable).parent / "mnist-pipeline")]


def environment(home: Path) -> dict[str, str]:
    """Return the environment in which the command works in `home`."""
    return {**os.environ, "MNIST_PIPELINE_HOME": str(home), "COLUMNS": str(WIDTH)}


def artifacts(home: Path, name: str) -> Path:
    """Return the folder of a run's artifacts."""
    client = MlflowClient(sqlite_uri(home / "mlruns" / "mlflow.db"))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    folder = home / "mlruns" / "artifacts" / "mnist"
    return folder / str(found.info.run_id) / "artifacts"


def paste(rows: list[list[Path]], place: Path) -> None:
    """Put pictures into one, row by row, each row as wide as the others."""
    width = 1400
    bands = []
    for row in rows:
        pictures = [Image.open(path).convert("RGB") for path in row]
        height = min(picture.height for picture in pictures)
        scaled = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
        band = Image.new("RGB", (sum(picture.width for picture in scaled), height), "white")
        for number, picture in enumerate(scaled):
            band.paste(picture, (sum(before.width for before in scaled[:number]), 0))
        bands.append(band.resize((width, round(band.height * width / band.width)), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (width, sum(band.height for band in bands)), "white")
    for number, band in enumerate(bands):
        sheet.paste(band, (0, sum(before.height for before in bands[:number])))
    save(sheet, place)


@contextlib.contextmanager
def started_ui(home: Path) -> Iterator[str]:
    """Yield the address of the experiment's runs in the MLflow UI."""
    arguments = [*program(), "ui", "--port", "0"]
    with subprocess.Popen(arguments, env=environment(home), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.stdout.readline().split()[1]
        child.send_signal(signal.SIGINT)


def photograph_ui(browser: Browser, address: str) -> None:
    """Make the picture of the list of runs."""
    page = browser.new_page(viewport={"width": 1440, "height": 620})
    page.set_default_timeout(READY_MS)
    page.goto(address)
    page.get_by_role("link", name="mnist-dense-w32-e9-s0").wait_for()
    # What covers the list: MLflow's assistant, and the hint that the columns are those of a shared view.
    for button in reversed(page.get_by_role("button", name="Close").all()):
        button.click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # until the list has taken the room
    keep(page, "ui")


def keep(page: Page, name: str) -> None:
    """Save what the window shows."""
    save(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), FOLDER / f"{name}.png")
    page.close()


def save(picture: Image.Image, place: Path) -> None:
    """Save with few colours: a quarter of the size, and no difference to be seen."""
    unfinished = place.with_suffix(".unfinished")
    picture.quantize(NUM_COLOURS).save(unfinished, format="PNG", optimize=True)
    unfinished.replace(place)
    print(f"{place.name}: {place.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
