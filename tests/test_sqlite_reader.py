"""A local store is read by SQL: it must find what MLflow's own client finds, in the same order."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mnist_pipeline.config.sections import TrackingConfig
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import runs, sqlite_reader, store
from mnist_pipeline.tracking.mlflow_reader import MlflowReader
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import ACTIVE, ALL, DELETED, Condition, Reader, StoredRun

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
    client = found.client.without_retries
    for name in ("one", "two"):
        fill(client, found.require_experiment(name))
    client.delete_experiment(client.create_experiment("deleted"))
    fill_registry(client, found.require_experiment("two"))
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


def fill_registry(client: MlflowClient, experiment_id: str) -> None:
    """Make logged models in every state, versions of two registered models, and a prompt, which is none."""
    run_ids = [run.info.run_id for run in client.search_runs([experiment_id], max_results=3)]
    for run_id, status in zip(run_ids, (LoggedModelStatus.READY, LoggedModelStatus.FAILED), strict=False):
        for _ in range(2):
            model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
            client.finalize_logged_model(model.model_id, status)
        client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    deleted = client.create_logged_model(experiment_id, name="model", source_run_id=run_ids[2])
    client.delete_logged_model(deleted.model_id)
    for name in ("b-classifier", "a-classifier"):
        client.create_registered_model(name)
        for run_id in (*run_ids, run_ids[0], None):
            client.create_model_version(name, source="/tmp/model", run_id=run_id, description=run_id and "A model.")
        client.delete_model_version(name, "2")
    client.set_registered_model_alias("a-classifier", "champion", "3")
    client.set_registered_model_alias("a-classifier", "challenger", "1")
    client.register_prompt("prompt", template="Say {{ what }}.")


def by_mlflow(
    opened: MlflowStore, experiments: list[str], text: str, stages: tuple[str, ...] = ACTIVE
) -> list[StoredRun]:
    return list(MlflowReader(opened.client).search(experiments, [text] if text else [], stages=stages))


def comparable(found: list[StoredRun]) -> list[str]:
    return [
        repr({**vars(run), **{key: sorted(vars(run)[key].items()) for key in ("params", "metrics", "tags")}})
        for run in found
    ]


@pytest.mark.parametrize("stages", [ACTIVE, DELETED, ALL])
@pytest.mark.parametrize("text", FILTERS)
def test_sql_finds_what_mlflow_finds(text: str, stages: tuple[str, ...], opened: MlflowStore) -> None:
    for experiments in (["1"], ["1", "2"]):
        conditions = [text] if text else []
        assert sqlite_reader.translate(conditions) is not None
        found = list(opened.reader.search(experiments, conditions, stages=stages))
        assert comparable(found) == comparable(by_mlflow(opened, experiments, text, stages))


@pytest.mark.parametrize(
    "condition",
    [
        Condition("tag", "kind", "=", "train"),
        Condition("tag", "note", "=", "it's"),
        Condition("tag", "note", "IS NOT NULL", None),
        Condition("parameter", "model.hidden_width", "!=", "128"),
        Condition("metric", "test/accuracy", ">=", 0),
        Condition("attribute", "status", "=", "FAILED"),
        Condition("attribute", "run_name", "LIKE", "run%"),
    ],
)
def test_our_own_conditions_mean_the_same_to_mlflow(condition: Condition, opened: MlflowStore) -> None:
    found = list(opened.reader.search(["1"], [condition], stages=ALL))
    assert 0 < len(found) < 12
    assert comparable(found) == comparable(by_mlflow(opened, ["1"], condition.to_filter(), ALL))
    assert opened.reader.count(["1"], [condition], stages=ALL) == len(found)


def test_every_kind_of_filter_finds_something_and_leaves_something_out(opened: MlflowStore) -> None:
    numbers = [len(list(runs.search(opened, ["1"], {}, conditions=[text] if text else []))) for text in FILTERS]
    assert numbers[0] == max(numbers) == 10
    assert sum(0 < number < 10 for number in numbers) > 13


@pytest.mark.parametrize("text", ["datasets.name = 'x'", "attributes.run_id IN ('a', 'b')", "run_name ILIKE 'RUN%'"])
def test_what_only_mlflow_knows_is_left_to_it(text: str, opened: MlflowStore) -> None:
    assert sqlite_reader.translate([text]) is None
    found = list(runs.search_stored(opened, ["1"], {}, conditions=[text]))
    assert comparable(found) == comparable(by_mlflow(opened, ["1"], text))


@pytest.mark.parametrize("text", ["nonsense", "tags.kind > 'a'", "metrics.x LIKE 'a'", "attributes.nope = '1'"])
def test_a_filter_that_mlflow_refuses_is_refused(text: str, opened: MlflowStore) -> None:
    with pytest.raises(MlflowException):
        list(runs.search(opened, ["1"], {}, conditions=[text]))


def test_only_the_keys_that_are_asked_for_are_read(opened: MlflowStore) -> None:
    keys = ("kind", "model.hidden_width")
    for run in runs.search(opened, ["1"], {"kind": "train"}, keys=keys):
        assert (set(run.tags), set(run.params), set(run.metrics)) == ({"kind"}, {"model.hidden_width"}, set())


def test_no_experiment_has_no_runs(opened: MlflowStore) -> None:
    assert list(runs.search(opened, [], {})) == []


def test_all_else_is_read_as_mlflow_reads_it(opened: MlflowStore) -> None:
    ours, theirs = opened.reader, MlflowReader(opened.client)
    found = list(ours.search(["1", "2"], [], stages=ALL))
    run_ids = [run.run_id for run in found]
    models = [model.model_id for run in found for model in ours.list_models(run.run_id, experiment_id="2")]
    assert len(models) == 6

    def read(reader: Reader) -> list[object]:
        return [
            comparable([run for run in map(reader.find_run, run_ids) if run]),
            [repr(reader.read_points(run_id, key)) for run_id in run_ids for key in ("test/accuracy", "none")],
            sorted(reader.list_experiments(), key=lambda one: int(one.experiment_id)),
            [sorted(map(repr, reader.list_models(run_id, experiment_id="2"))) for run_id in run_ids],
            [reader.find_model(model_id) for model_id in models],
            reader.list_registered(),
            [reader.read_aliases(name) for name in ("a-classifier", "b-classifier", "none", "no:name")],
            [reader.list_versions(name=name) for name in ("a-classifier", "none")],
            [reader.list_versions(run_id=run_id) for run_id in run_ids],
            [reader.find_run("0" * 32), reader.find_run("no id"), reader.find_model("m-none")],
        ]

    assert read(ours) == read(theirs)
    assert ours.list_registered() == ["a-classifier", "b-classifier"]
    assert ours.read_aliases("a-classifier") == {"champion": 3, "challenger": 1}
    assert [one.version for one in ours.list_versions(name="a-classifier")] == [1, 3, 4, 5]
    assert {one.is_ready for run in found for one in ours.list_models(run.run_id, experiment_id="2")} == {True, False}


def test_a_store_that_does_not_exist_is_empty_and_stays_so(home: Path) -> None:
    opened = MlflowStore(TrackingConfig(uri=Address(store.sqlite_uri(home / "none.db")), experiment="digits"))
    assert opened.reader.list_experiments() == []
    assert opened.reader.find_run("0" * 32) is None
    assert list(opened.reader.search(["1"], [], stages=ALL)) == []
    assert opened.reader.count(["1"], [], stages=ALL) == 0
    assert not (home / "none.db").exists()


def test_reading_commands_do_not_import_mlflow(champion_home: Path) -> None:
    """It takes two seconds."""
    program = (
        "import sys\n"
        "from mnist_pipeline.cli import main\n"
        "try: main()\n"
        "finally: print('imported:', sorted({'mlflow', 'tensorflow', 'sklearn', 'sqlalchemy'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "MNIST_PIPELINE_HOME": str(champion_home)}
    for words in (["compare", "data=digits"], ["history", "data=digits"], ["diff", "champion", "1", "data=digits"]):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "imported: []" in done.stdout) == (0, True), (done.stdout, done.stderr)
