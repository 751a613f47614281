from pathlib import Path

from conftest import Cli
from reports_home import client_of

from mnist_pipeline.reports import studies
from mnist_pipeline.tracking.record import RunRecord


def test_every_sweep_is_a_row(cli: Cli, reports_home: Path) -> None:
    (sweep,) = client_of(reports_home).search_runs(["1"], "tags.kind = 'sweep'")
    found = cli("studies", MNIST_PIPELINE_HOME=str(reports_home), COLUMNS="100")
    assert found.returncode == 0, found.stderr
    (row,) = [line.split() for line in found.stdout.splitlines() if "FINISHED" in line]
    assert row[0] == sweep.data.tags["study"]
    assert row[-1] == f"{sweep.data.metrics['sweep/winner_test_accuracy']:.4f}"
    assert f"{sweep.data.metrics['sweep/best_validation_accuracy']:.4f}" in row
    assert "8" in row


def test_without_a_study_the_next_step_is_named(cli: Cli) -> None:
    found = cli("studies")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.endswith("mnist-pipeline sweep makes one\n")


def test_a_sweep_that_was_killed_at_once_is_a_row_too() -> None:
    def nothing(path: str) -> bytes:
        raise FileNotFoundError(path)

    young = RunRecord("id", "1", "sweep x", "RUNNING", "", 0, {}, {}, {"study": "x"}, nothing)
    assert studies.tabulate([young]).rows[0][0] == "x"
    assert studies.tabulate([young]).rows[0][3:] == ("RUNNING", "", "", "", "")
