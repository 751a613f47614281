"""A store, read through MLflow's client: a tracking server, or a database on one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mnist_pipeline.tracking.absence import is_absent
from mnist_pipeline.tracking.reading import (
    ACTIVE,
    ALL,
    DELETED,
    Condition,
    StoredExperiment,
    StoredModel,
    StoredPoint,
    StoredRun,
    StoredVersion,
)
from mnist_pipeline.tracking.retries import RetryingClient

_PAGE = 1000
_VIEWS = {ACTIVE: 1, DELETED: 2, ALL: 3}
"""MLflow's `ViewType`, by the stages that it shows."""


class MlflowReader:
    """Reads a store through its client, which imports MLflow at its first call."""

    def __init__(self, client: RetryingClient) -> None:
        self._client = client

    @staticmethod
    def parse(condition: str) -> list[Condition | None]:
        """Return the parts of a condition that a user typed; None for those that only MLflow's own search knows.

        Raises:
            MlflowException: MLflow does not understand it.
        """
        from mlflow.utils.search_utils import SearchUtils  # imported here, because most commands parse nothing

        return [_condition(parsed) for parsed in SearchUtils.parse_search_filter(condition)]

    def find_run(self, run_id: str) -> StoredRun | None:
        """Return the run, even if it was deleted."""
        found = self._unless_absent(self._client.get_run, run_id)
        return None if found is None else describe(found)

    def search(
        self,
        experiment_ids: Sequence[str],
        conditions: Sequence[Condition | str],
        *,
        stages: Sequence[str],
        keys: Collection[str] | None = None,
    ) -> Iterator[StoredRun]:
        """Yield the runs that fulfil all conditions, as `Reader.search` does."""
        texts = [condition.to_filter() if isinstance(condition, Condition) else condition for condition in conditions]
        token = None
        while experiment_ids:
            page = self._client.search_runs(
                list(experiment_ids),
                filter_string=" and ".join(texts),
                run_view_type=_VIEWS[tuple(stages)],
                order_by=["attributes.start_time DESC"],
                max_results=_PAGE,
                page_token=token,
            )
            yield from map(describe, page)
            token = page.token
            if not token:
                return

    def count(self, experiment_ids: Sequence[str], conditions: Sequence[Condition], *, stages: Sequence[str]) -> int:
        """Return how many runs `search` finds."""
        return sum(1 for _ in self.search(experiment_ids, conditions, stages=stages))

    def read_points(self, run_id: str, metric: str) -> list[StoredPoint]:
        """Return all values of a metric."""
        found = self._client.get_metric_history(run_id, metric)
        return [StoredPoint(point.value, point.step, point.timestamp) for point in found]

    def list_experiments(self) -> list[StoredExperiment]:
        """Return all experiments, the deleted ones too."""
        return [
            StoredExperiment(str(one.experiment_id), one.name, one.lifecycle_stage, one.tags)
            for one in self._list_pages(self._client.search_experiments, view_type=_VIEWS[ALL])
        ]

    def list_models(self, run_id: str, *, experiment_id: str) -> list[StoredModel]:
        """Return the models that a run logged, the newest first."""
        condition = f"source_run_id = '{run_id}'"
        return [_model(one) for one in self._client.search_logged_models([experiment_id], filter_string=condition)]

    def find_model(self, model_id: str) -> StoredModel | None:
        """Return the logged model with this id, if it was not deleted."""
        found = self._unless_absent(self._client.get_logged_model, model_id)
        return None if found is None else _model(found)

    def list_registered(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        return sorted(model.name for model in self._list_pages(self._client.search_registered_models))

    def read_aliases(self, name: str) -> dict[str, int] | None:
        """Return the versions that the aliases of a registered model name; None if there is no such model."""
        found = self._unless_absent(self._client.get_registered_model, name)
        return None if found is None else {alias: int(version) for alias, version in found.aliases.items()}

    def list_versions(self, *, name: str | None = None, run_id: str | None = None) -> list[StoredVersion]:
        """Return the versions of the registered model `name`, or those that came from the run, in their order."""
        condition = f"name = '{name}'" if name is not None else f"run_id = '{run_id}'"
        found = [_version(one) for one in self._list_pages(self._client.search_model_versions, condition)]
        return sorted(found, key=lambda one: (one.name, one.version))

    def _list_pages(self, search: Any, *args: Any, **named: Any) -> Iterator[Any]:
        token = None
        while True:
            page = search(*args, page_token=token, **named)
            yield from page
            token = page.token
            if not token:
                return

    def _unless_absent(self, get: Any, name: str) -> Any:
        try:
            return get(name)
        except Exception as error:
            if not is_absent(error):
                raise
            return None


def _condition(parsed: Mapping[str, Any]) -> Condition | None:
    """Return a parsed condition; None if only MLflow's own search knows it.

    Raises:
        MlflowException: Its comparator does not fit.
    """
    from mlflow.utils.search_utils import SearchUtils

    kind, comparator = parsed["type"], parsed["comparator"].upper()
    value: Any = parsed.get("value")
    key = SearchUtils.translate_key_alias(parsed["key"])
    # As MLflow does before it searches: it raises if the comparator does not fit.
    checks = (SearchUtils.is_tag, SearchUtils.is_param, SearchUtils.is_metric)
    if any(check(kind, comparator) for check in checks):
        is_number = kind == "metric" and value is not None
        return Condition(kind, key, comparator, float(value) if is_number else value)
    is_attribute = (SearchUtils.is_string_attribute, SearchUtils.is_numeric_attribute)
    if any(check(kind, key, comparator) for check in is_attribute):
        return Condition("attribute", key, comparator, value)
    return None


def describe(entity: Any) -> StoredRun:
    """Return a run of MLflow's client as a stored run."""
    info, data = entity.info, entity.data
    return StoredRun(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        name=info.run_name or "",
        status=info.status,
        started_ms=info.start_time or 0,
        stage=info.lifecycle_stage,
        artifact_uri=info.artifact_uri,
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
    )


def _model(one: Any) -> StoredModel:
    return StoredModel(one.model_id, one.artifact_location, one.status.value == "READY")


def _version(one: Any) -> StoredVersion:
    return StoredVersion(one.name, int(one.version), one.run_id or "", one.source or "", one.description or "")
