"""What is read from a store: runs, experiments, models and versions, by SQL from a local one, by MLflow from others."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

ACTIVE, DELETED, ALL = ("active",), ("deleted",), ("active", "deleted")
"""The stages of what a search finds."""


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it.

    Attributes:
        stage: MLflow's: active or deleted.
        started_ms: In milliseconds of Unix time.
        metrics: The last value of each.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    started_ms: int
    stage: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class StoredPoint(NamedTuple):
    """A value of a metric; the time is in milliseconds of Unix time."""

    value: float
    step: int
    timestamp_ms: int


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment; its stage is active or deleted."""

    experiment_id: str
    name: str
    stage: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class StoredModel:
    """A logged model.

    Attributes:
        location: Of its files.
        is_ready: Whether it was logged completely.
    """

    model_id: str
    location: str
    is_ready: bool


@dataclass(frozen=True)
class StoredVersion:
    """A version of a registered model.

    Attributes:
        run_id: Of the run that it came from; empty if it came from none.
        source: The model that it was made of: models:/ and the model's id, or the location of its files.
    """

    name: str
    version: int
    run_id: str
    source: str
    description: str


@dataclass(frozen=True)
class Condition:
    """A condition on runs, as MLflow's language of filters has it.

    Attributes:
        kind: Of what is compared.
        key: Its name.
        comparator: MLflow's: =, !=, >=, LIKE and others.
        value: None for IS NULL and IS NOT NULL.
    """

    kind: Literal["attribute", "metric", "parameter", "tag"]
    key: str
    comparator: str
    value: str | float | None

    def to_filter(self) -> str:
        """Return the condition in MLflow's language, which cannot quote a text with both kinds of quotes."""
        what = f"{self.kind}s.`{self.key}` {self.comparator}"
        if isinstance(self.value, str):
            quote = '"' if "'" in self.value else "'"
            return f"{what} {quote}{self.value}{quote}"
        return what if self.value is None else f"{what} {self.value}"


FINISHED = Condition("attribute", "status", "=", "FINISHED")


def has_tags(tags: Mapping[str, str]) -> list[Condition]:
    """Return the conditions for runs with all of `tags`."""
    return [Condition("tag", key, "=", value) for key, value in tags.items()]


class Reader(Protocol):
    """Reads a store. What does not exist is None, or is not in the list."""

    def find_run(self, run_id: str) -> StoredRun | None:
        """Return the run, even if it was deleted."""

    def search(
        self,
        experiment_ids: Sequence[str],
        conditions: Sequence[Condition | str],
        *,
        stages: Sequence[str],
        keys: Collection[str] | None = None,
    ) -> Iterator[StoredRun]:
        """Yield the runs that fulfil all conditions, the newest first.

        Args:
            experiment_ids: The experiments to search; an empty list finds nothing.
            conditions: Of the runs; a text is one that a user typed, in MLflow's language.
            stages: Of the runs.
            keys: Of the params, metrics and tags that are needed; what else the runs have may be missing then.

        Raises:
            MlflowException: MLflow does not understand the text.
        """

    def count(self, experiment_ids: Sequence[str], conditions: Sequence[Condition], *, stages: Sequence[str]) -> int:
        """Return how many runs `search` finds."""

    def read_points(self, run_id: str, metric: str) -> list[StoredPoint]:
        """Return all values of a metric."""

    def list_experiments(self) -> list[StoredExperiment]:
        """Return all experiments, the deleted ones too."""

    def list_models(self, run_id: str, *, experiment_id: str) -> list[StoredModel]:
        """Return the models that a run logged, the newest first."""

    def find_model(self, model_id: str) -> StoredModel | None:
        """Return the logged model with this id, if it was not deleted."""

    def list_registered(self) -> list[str]:
        """Return the names of all registered models, sorted."""

    def read_aliases(self, name: str) -> dict[str, int] | None:
        """Return the versions that the aliases of a registered model name; None if there is no such model."""

    def list_versions(self, *, name: str | None = None, run_id: str | None = None) -> list[StoredVersion]:
        """Return the versions of the registered model `name`, or those that came from the run, in their order."""
