"""A local store is searched by SQL: it must find what MLflow's own search finds, in the same order."""

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import runs, sqlite_search, store
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.sqlite_search import StoredRun

FILTERS = [
    "",
    "tags.kind = 'train'",
    "tags.kind != 'train'",
    "tags.kind LIKE 'T%'",
    "tags.note IS NULL",
    "tags.note IS NOT NULL",
    "tags.`data.digest` = 'it''s'",
    'tags.note = "it\'s"',
    "params.`model.hidden_width` = '128'",
    "params.`model.hidden_width` != '128' and tags.kind = 'train'",
    "params.missing = '1'",
    "metrics.`test/accuracy` > 0.5",
    "metrics.`test/accuracy` >= 0",
    "metrics.`test/accuracy` != 0.5",
    "metrics.`test/accuracy` < 1e300",
    "attributes.status = 'FINISHED'",
    "attributes.status != 'FINISHED'",
    "attributes.run_name = 'ünder_score'",
    "attributes.run_name LIKE 'run%'",
    "attributes.start_time > 1500",
    "attributes.run_id LIKE '%a%'",
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    found = MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(database)), experiment="unused"))
    for name in ("one", "two"):
        fill(found.client.without_retries, found.require_experiment(name))
    return found


def fill(client: MlflowClient, experiment_id: str) -> None:
    """Make runs of all kinds, some of them begun in the same millisecond."""
    for number in range(12):
        name = "ünder_score" if number == 5 else f"run-{number}"
        tags = {"kind": ["train", "trial", "Train"][number % 3]} | ({"note": "it's"} if number % 4 == 1 else {})
        run = client.create_run(experiment_id, start_time=1000 + 200 * (number // 2), run_name=name, tags=tags)
        value = [0.5, math.nan, math.inf, 0.9, -1.0, 0.5 + 1e-16][number % 6]
        client.log_batch(
            run.info.run_id,
            metrics=[Metric("test/accuracy", value, 1, 1), Metric("train/loss", 0.1, 1, 2)] if number % 5 else [],
            params=[Param("model.hidden_width", str(64 * (1 + number % 2))), Param("data.path", "/tmp/ä 'b'")],
            tags=[RunTag("data.digest", "d" * 64)],
        )
        if number % 3:
            client.set_terminated(run.info.run_id, ["FINISHED", "FAILED", "KILLED"][number % 3])
        if number % 6 == 4:
            client.delete_run(run.info.run_id)


def by_mlflow(opened: MlflowStore, experiments: list[str], text: str, stages: tuple[str, ...]) -> list[StoredRun]:
    found = opened.client.search_runs(
        experiments, filter_string=text, run_view_type=runs._VIEWS[stages], order_by=["attributes.start_time DESC"]
    )
    return [runs.describe(entity) for entity in found]


def comparable(found: list[StoredRun]) -> list[str]:
    return [
        repr({**vars(run), **{key: sorted(vars(run)[key].items()) for key in ("params", "metrics", "tags")}})
        for run in found
    ]


@pytest.mark.parametrize("stages", [runs.ACTIVE, runs.DELETED, runs.ALL])
@pytest.mark.parametrize("text", FILTERS)
def test_sql_finds_what_mlflow_finds(text: str, stages: tuple[str, ...], opened: MlflowStore) -> None:
    for experiments in (["1"], ["1", "2"]):
        conditions = (text,) if text else ()
        found = list(runs.search_stored(opened, experiments, {}, conditions=conditions, stages=stages))
        assert comparable(found) == comparable(by_mlflow(opened, experiments, text, stages))
    known = sqlite_search.translate(text)
    assert known is not None
    assert opened.database is not None
    assert sqlite_search.count(opened.database, sqlite_search.choose(["1", "2"], known, stages=stages)) == len(found)


def test_every_kind_of_filter_finds_something_and_leaves_something_out(opened: MlflowStore) -> None:
    numbers = [len(list(runs.search(opened, ["1"], {}, conditions=(text,) if text else ()))) for text in FILTERS]
    assert numbers[0] == max(numbers) == 10
    assert sum(0 < number < 10 for number in numbers) > 13


@pytest.mark.parametrize("text", ["datasets.name = 'x'", "attributes.run_id IN ('a', 'b')", "run_name ILIKE 'RUN%'"])
def test_what_only_mlflow_knows_is_left_to_it(text: str, opened: MlflowStore) -> None:
    assert sqlite_search.translate(text) is None
    found = list(runs.search_stored(opened, ["1"], {}, conditions=(text,)))
    assert comparable(found) == comparable(by_mlflow(opened, ["1"], text, runs.ACTIVE))


@pytest.mark.parametrize("text", ["nonsense", "tags.kind > 'a'", "metrics.x LIKE 'a'", "attributes.nope = '1'"])
def test_a_filter_that_mlflow_refuses_is_refused(text: str, opened: MlflowStore) -> None:
    with pytest.raises(MlflowException):
        list(runs.search(opened, ["1"], {}, conditions=(text,)))


def test_only_the_keys_that_are_asked_for_are_read(opened: MlflowStore) -> None:
    keys = ("kind", "model.hidden_width")
    for run in runs.search(opened, ["1"], {"kind": "train"}, keys=keys):
        assert (set(run.tags), set(run.params), set(run.metrics)) == ({"kind"}, {"model.hidden_width"}, set())


def test_a_search_of_no_experiment_finds_nothing(opened: MlflowStore, tmp_path: Path) -> None:
    assert list(runs.search(opened, [], {})) == []
