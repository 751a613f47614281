import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rich.table
import rich.text
from conftest import Cli, command, digits_arrays
from markdown_it import MarkdownIt
from PIL import Image
from reports_home import CHAMPION, NAMES, client_of, copy_of, run_named

from mnist_pipeline.cli.errors import print_error
from mnist_pipeline.registry import ledger
from mnist_pipeline.registry.gates import Gate
from mnist_pipeline.registry.ledger import Decision, Outcome
from mnist_pipeline.reports import page, report
from mnist_pipeline.reports.page import Page, Section, Table, Text
from mnist_pipeline.reports.terminal import to_markdown
from mnist_pipeline.system import console
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.system.text import markdown, plain, printable
from mnist_pipeline.tracking import sqlite_store
from mnist_pipeline.tracking.record import RunRecord

EVIL = "\x1b]0;x\x07\u202e\u2066\n\x9b2J\u200b:smile: [red]*b*"
SHOWN = "\\x1b]0;x\\x07\\u202e\\u2066\\n\\x9b2J\\u200b:smile: [red]*b*"
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë's run 手 ± 😀 [x] \\", "Zoë's run 手 ± 😀 [x] \\"),
        ("\x00\x1b[31m\x7f\x85\x9b", "\\x00\\x1b[31m\\x7f\\x85\\x9b"),
        (
            "\u202e\u2066\u200f\u061c\u200b\ufeff\xad\U000e0041",
            "\\u202e\\u2066\\u200f\\u061c\\u200b\\ufeff\\xad\\U000e0041",
        ),
        ("a\u2028b\u2029c\xa0d\te\r\n", "a\\u2028b\\u2029c\\xa0d\\te\\r\\n"),
        ("\ud800 \udcff \ue000 \u0378", "\\ud800 \\xff \\ue000 \\u0378"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_are_kept_where_that_is_asked_for() -> None:
    assert printable("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"


@pytest.mark.parametrize(
    "text",
    [
        "digits-dense-w16-e3-s0",
        "*a* **b** _c_ __d__ `e` ~~f~~",
        "[a](http://x) ![b](y) <http://z> [c]: d",
        "<script>alert(1)</script> &lt; &#60; &copy",
        "a | b \\| c \\ d \\\\ e \\*f\\*",
        "hidden_width _x y_ $1$ @someone a@b",
        "``` x ```",
        EVIL,
    ],
)
def test_markdown_shows_text_as_typed(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    document = f"We say {markdown(text)} here.\n\n| **x** | y |\n| --- | --- |\n| z {markdown(text)} | 1 |\n"
    blocks = [token for token in reader.parse(document) if token.type == "inline"]
    leaves = [[(child.type, child.content) for child in block.children or ()] for block in blocks]
    shown = printable(text)
    assert "".join(content for _, content in leaves[0]) == f"We say {shown} here."
    assert "".join(content for _, content in leaves[3]) == f"z {shown}"
    assert len(leaves) == 5
    assert {kind for kind, _ in leaves[0] + leaves[3]} <= {"text", "text_special"}
    assert plain(markdown(text)) == shown


def test_a_description_is_read_without_its_emphasis() -> None:
    assert (
        plain("**digits** (1,000 train); `a_b`. **Test accuracy 0.9**")
        == "digits (1,000 train); a_b. Test accuracy 0.9"
    )


def test_the_consoles_show_strings_as_single_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = rich.table.Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    for one in (console.out(), console.err()):
        one.print(EVIL, style="bold", soft_wrap=True)
        one.print(table, width=500)
        one.print(rich.text.Text(EVIL))  # which Rich does not ask the console about
    for text in capsys.readouterr():
        assert not ACTING.search(text)
        assert text.count(SHOWN) == 4
        assert text.count("\n") == 9


def test_errors_are_single_lines_and_bugs_show_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UserError(f"{EVIL}: no such run"))
    print_error(ValueError(EVIL))
    text = capsys.readouterr().err
    assert not ACTING.search(text)
    assert text.startswith("error: \\x1b]0;x\\x07")
    assert "\nTraceback" in text or "\nValueError" in text


def test_pages_and_markdown_hold_nothing_that_acts() -> None:
    cells = Table(EVIL, (EVIL, "b"), ((f"{EVIL}|", "1"),), (False, True))
    found = Page(title=EVIL, lead=EVIL, sections=(Section(EVIL, (Text(EVIL), cells)),))
    html = page.render(found)
    assert not ACTING.search(html)
    assert html.count(SHOWN.replace("\\n", "\n").replace("\n", "")[:20]) >= 7
    text = to_markdown(found)
    assert not ACTING.search(text)
    assert len(text.splitlines()) == 11
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<em>" not in rendered
    assert rendered.count("<td") == 2
    assert rendered.count(SHOWN) == 6


def test_mlflow_shows_reasons_and_gates_as_typed() -> None:
    gate = Gate("whole", "missing: <b>a|b</b>", "*nothing*", False)
    decision = Decision(Outcome.rolled_back, 2, "a" * 32, 1, "b" * 32, f"It was _bad_ {EVIL}", gates=(gate,))
    row = {"gate": gate.name, "figure": gate.figure, "bound": gate.bound, "verdict": gate.verdict}
    text = ledger._describe(decision, [row])
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<em>" not in rendered
    assert "<b>" not in rendered
    assert f"It was _bad_ {SHOWN}" in rendered
    assert "<td>missing: &lt;b&gt;a|b&lt;/b&gt;</td>" in rendered


def test_the_report_reads_a_description_that_was_escaped() -> None:
    run = RunRecord(
        "a" * 32,
        "1",
        "a",
        "FINISHED",
        "",
        0,
        {},
        {},
        {"mlflow.note.content": f"**b** {markdown('<x> *y*')}"},
        str.encode,
    )
    assert report.describe_run(run, ())[0] == Text("b <x> *y*")


# From the commands to terminals, pipes and files


@pytest.fixture(scope="module")
def hostile_home(reports_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose names, tags and reasons are hostile."""
    home = copy_of(reports_home, tmp_path_factory.mktemp("hostile") / "home")
    client = client_of(home)
    run = run_named(home, NAMES[0])
    client.log_param(run.info.run_id, "model.evil", EVIL)
    client.set_tag(run.info.run_id, "mlflow.user", EVIL)
    client.set_tag(run.info.run_id, "data.sources", EVIL)
    client.set_tag(run_named(home, "a failed one").info.run_id, "reason", EVIL)
    for name in (NAMES[0], CHAMPION):
        client.update_run(run_named(home, name).info.run_id, name=f"{name} {EVIL}")
    client.create_experiment(EVIL, tags={sqlite_store.OVERVIEW_TAG: "{}"})
    experiment = client.get_experiment_by_name("digits-classifier ledger")
    for entry in client.search_runs([experiment.experiment_id]):
        for key in ("ledger.reason", "ledger.host", "mlflow.user"):
            client.set_tag(entry.info.run_id, key, EVIL)
    return home


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """Return the variables for a command in the home, without what MLflow sets in this process."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "NO_COLOR")}
    return {**kept, "MNIST_PIPELINE_HOME": str(home), **more}


def in_terminal(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Return the exit code, and everything that a terminal is sent."""
    leader, follower = pty.openpty()
    with subprocess.Popen(arguments, stdout=follower, stderr=follower, env=environment) as child:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while chunk := os.read(leader, 65536):
                shown += chunk
    os.close(leader)
    return child.returncode, shown.decode()


def find_id(home: Path, name: str) -> str:
    found = client_of(home).search_runs(["1"], f"attributes.run_name LIKE '{name}%'")
    return str(found[0].info.run_id)


# One process, since each command of its own would import everything anew.
_EACH = """
import sys
from mnist_pipeline import cli
for arguments in {commands!r}:
    for stream in (sys.stdout, sys.stderr):
        print("=====", file=stream, flush=True)
    sys.argv = ["mnist-pipeline", *arguments]
    code = cli.main()
    sys.stdout.flush()
    print("exit", code, file=sys.stderr, flush=True)
"""


def run_each(home: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Return exit code, stdout and stderr of each command."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    found = subprocess.run(
        [sys.executable, "-c", _EACH.format(commands=commands)],
        env={**environment, "MNIST_PIPELINE_HOME": str(home)}, capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    outputs, errors = (text.decode().split("=====\n")[1:] for text in (found.stdout, found.stderr))
    codes = [int(text.rpartition("exit ")[2]) for text in errors]
    return list(zip(codes, outputs, (text.rpartition("exit ")[0] for text in errors), strict=True))


def test_no_command_prints_control_characters(hostile_home: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    arrays = digits_arrays()
    Image.fromarray(arrays["x_test"][0]).save(pictures / f"{EVIL[:-6]}.png")
    (pictures / f"bad {EVIL[:-6]}.png").write_text("")
    with zipfile.ZipFile(pictures / "z.npz", "w") as archive:
        for name, pixels in (("good", arrays["x_test"][:1]), ("bad", np.zeros((1, 8), float))):
            with archive.open(f"{name} {EVIL}.npy", "w") as file:
                np.lib.format.write_array(file, pixels)
    a, b = find_id(hostile_home, NAMES[0]), find_id(hostile_home, CHAMPION)
    table, diffed, reported = tmp_path / "table.md", tmp_path / "diff.html", tmp_path / "report.html"
    found = run_each(
        hostile_home,
        ["compare", "data=digits", "--output", str(table)],
        ["compare", EVIL, "a failed one", a, "data=digits"],
        ["diff", a, b, "data=digits", "--output", str(diffed)],
        ["report", a, "data=digits", "--output", str(reported)],
        ["report", EVIL, "data=digits"],
        ["history", "data=digits"],
        ["promote", "--dry-run", a, "data=digits", "promote.min_test_accuracy=0.999"],
        ["predict", str(pictures), "data=digits"],
        ["compare", "--top", EVIL],
    )
    assert [code for code, _, _ in found] == [0, 1, 0, 0, 1, 0, 3, 1, 2]
    for _, output, errors in found:
        assert not ACTING.search(output)
        assert not ACTING.search(errors)
        assert "Traceback" not in errors
    of_compare, of_names, of_diff, _, of_unknown, of_history, of_promote, of_predict, of_usage = found
    for text in (of_compare[1], of_names[1], of_diff[1], of_history[1], of_promote[1], of_predict[1]):
        assert "\\x1b]0;x\\x07" in text
        assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in text  # a narrow column may break ":smile:"
    for text in (of_names[2], of_unknown[2], of_promote[2], of_predict[2], of_usage[2]):
        assert "\\x1b]0;x\\x07" in text
    assert [errors.count("\n") for _, _, errors in found] == [0, 2, 0, 0, 1, 0, 2, 3, 1]
    for path in (table, diffed, reported):
        assert not ACTING.search(path.read_text())
        assert "x1b]0;x" in path.read_text().replace("\\]", "]")
    rendered = MarkdownIt("commonmark").enable("table").render(table.read_text())
    assert "<em>" not in rendered
    assert SHOWN in rendered
    entity = client_of(hostile_home).get_run(a)
    assert entity.info.run_name == f"{NAMES[0]} {EVIL}"  # what is kept stays what it is
    assert entity.data.params["model.evil"] == EVIL


def test_the_ui_shows_experiments_as_they_are_called(hostile_home: Path) -> None:
    arguments, environment = command("ui", "--port", "0"), surroundings(hostile_home)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline().decode() for _ in range(3)]
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert not ACTING.search("".join(lines))
    columns = [line.index("http://") for line in lines[1:]]
    assert sorted(line.split("  ")[0] for line in lines[1:]) == sorted([SHOWN, "digits"])
    assert len(set(columns)) == 1


def test_in_a_terminal_styles_are_ours_alone(hostile_home: Path) -> None:
    names = [find_id(hostile_home, name) for name in (NAMES[0], CHAMPION)]
    environment = surroundings(hostile_home, TERM="xterm-256color", COLUMNS="400")
    code, text = in_terminal(command("compare", *names, "data=digits"), environment)
    assert code == 0
    assert "\x1b[1mRuns\x1b[0m" in text
    assert "─" in text
    assert not ACTING.search(re.sub(r"\x1b\[[0-9;]*m|\r\n", "", text))
    assert text.count("\\x1b]0;x\\x07\\u202e") >= 4


def test_a_terminal_that_knows_ascii_alone_gets_the_whole_page(fresh_cli: Cli, reports_home: Path) -> None:
    found = fresh_cli(
        "compare", "data=digits", *NAMES, MNIST_PIPELINE_HOME=str(reports_home), PYTHONIOENCODING="ascii:strict"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.isascii()
    assert found.stderr == ""
    assert "Seeds together" in found.stdout
    assert "points (95% interval" in found.stdout.splitlines()[-1]
    rows = [line for line in found.stdout.split("Seeds together")[1].splitlines() if "\\xb1" in line and "." in line]
    assert len({line.index("\\xb1") for line in rows if line.startswith(" hidden")}) <= 1
