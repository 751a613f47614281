"""The registered models in MLflow's registry: their versions, and the versions that their aliases name."""

import contextlib
import json
from collections.abc import Iterator, Mapping

from mnist_pipeline.system.errors import GoneError, UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking.absence import error_code
from mnist_pipeline.tracking.artifacts import ArtifactFolder
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.reading import StoredVersion
from mnist_pipeline.tracking.store import UI_VIEW

CHAMPION = "champion"
CHALLENGER = "challenger"
CARD_TAG = "model_card"
CARD_TITLE = "Model card"
_LOGGED = "models:/"
_VERSIONS_TAG = "mlflow.modelVersions"


class RegisteredModel:
    """A registered model in an MLflow store; it may not exist yet."""

    def __init__(self, store: MlflowStore, name: str) -> None:
        self.name = name
        self.address = store.address(f"models/{name}")
        self._reader = store.reader
        self._client = store.client
        self._tracking_uri = store.connected

    def register(self, run_id: str, model_id: str) -> int:
        """Return the version of the run's model; create one if it has none."""
        if self._reader.read_aliases(self.name) is None:
            try:
                self._client.create_registered_model(self.name)
            except Exception as error:
                if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
        version = self.version_of(run_id, model_id)
        if version is None:
            made = self._client.create_model_version(
                self.name, source=_source(model_id), run_id=run_id, model_id=model_id
            )
            version = int(made.version)
        # MLflow's pages of the run and of its logged model show the version by this tag.
        link = json.dumps([{"name": self.name, "version": str(version)}])
        self._client.set_logged_model_tags(model_id, {_VERSIONS_TAG: link})
        return version

    def version_of(self, run_id: str, model_id: str) -> int | None:
        """Return the version of the run's model; the first one if there are several."""
        found = self._reader.list_versions(run_id=run_id)
        named = [one.version for one in found if one.name == self.name and one.source == _source(model_id)]
        return min(named, default=None)

    def run_of(self, version: int) -> str:
        """Return the id of the run that the version came from.

        Raises:
            UserError: There is no such version.
            GoneError: It did not come from a run.
        """
        run_id = self.run_id(version)
        if run_id is None:
            raise GoneError(
                f"version {version} of {self.name} did not come from a run, so nothing can be compared with it: roll "
                f"back to another ({command('rollback', '--to VERSION --reason WHY')}), or remove it (--to none)"
            )
        return run_id

    def run_id(self, version: int) -> str | None:
        """Return the id of the run whose model the version is; None if it did not come from a run.

        Raises:
            UserError: There is no such version.
        """
        return self._get(version).run_id or None

    def model_folder(self, version: int) -> ArtifactFolder:
        """Return the files of the version's model.

        Raises:
            UserError: There is no such version.
            GoneError: Its model was deleted.
        """
        source = self._get(version).source
        if source.startswith(_LOGGED):
            model = self._reader.find_model(source.removeprefix(_LOGGED))
            if model is None:
                raise GoneError(f"the model of version {version} of {self.name} was deleted")
            return ArtifactFolder(model.location, tracking_uri=self._tracking_uri)
        address = self._client.get_model_version_download_uri(self.name, str(version))  # of another program
        return ArtifactFolder(address, tracking_uri=self._tracking_uri)

    def aliases(self) -> dict[int, list[str]]:
        """Return the aliases of every version that has any, in alphabetical order."""
        found: dict[int, list[str]] = {}
        for alias, version in sorted((self._reader.read_aliases(self.name) or {}).items()):
            found.setdefault(version, []).append(alias)
        return found

    def versions(self) -> list[int]:
        """Return all versions, the oldest first."""
        return [one.version for one in self._reader.list_versions(name=self.name)]

    def link_card(self, version: int, page: str) -> None:
        """Link the version's page to its model card, a page of the MLflow UI."""
        self._client.set_model_version_tag(self.name, str(version), CARD_TAG, page)
        text = self._get(version).description
        if CARD_TITLE not in text:
            self._client.update_model_version(self.name, str(version), description=f"{text}{link_to_card(page)}")

    def named(self, alias: str) -> int | None:
        """Return the version that the alias names."""
        return (self._reader.read_aliases(self.name) or {}).get(alias)

    def point(self, alias: str, version: int | None) -> None:
        """Point the alias at the version, in one write; None removes the alias."""
        if version is not None:
            self._client.set_registered_model_alias(self.name, alias, str(version))
        elif self.named(alias) is not None:
            self._client.delete_registered_model_alias(self.name, alias)

    def describe(self, text: str, *, tags: Mapping[str, str]) -> None:
        """Set the description and tags of the registered model.

        Raises:
            GoneError: It was deleted.
        """
        with self._requiring(f"the registered model {self.name}"):
            self._client.update_registered_model(self.name, description=text)
            for key, value in tags.items():
                self._client.set_registered_model_tag(self.name, key, value)

    def describe_version(self, version: int, text: str, *, tags: Mapping[str, str]) -> None:
        """Set the description and tags of a version.

        Raises:
            GoneError: It was deleted.
        """
        with self._requiring(f"version {version} of {self.name}"):
            self._client.update_model_version(self.name, str(version), description=text)
            for key, value in tags.items():
                self._client.set_model_version_tag(self.name, str(version), key, value)

    @contextlib.contextmanager
    def _requiring(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise GoneError(f"{what} was deleted: run the same command again") from error

    def _get(self, version: int) -> StoredVersion:
        found = self._reader.list_versions(name=self.name)
        if version not in (known := [one.version for one in found]):
            shown = ", ".join(map(str, known)) or "none"
            raise UserError(f"{self.name} has no version {version}: it has {shown}")
        return found[known.index(version)]


def list_models(store: MlflowStore) -> list[RegisteredModel]:
    """Return all registered models, sorted by name."""
    return [RegisteredModel(store, name) for name in store.reader.list_registered()]


def find_versions(store: MlflowStore, run_id: str) -> list[tuple[RegisteredModel, int]]:
    """Return every version that came from the run, of any registered model."""
    found = store.reader.list_versions(run_id=run_id)
    return [(RegisteredModel(store, one.name), one.version) for one in found]


def link_to_card(page: str) -> str:
    """Return the end of a Markdown description that links to a model card."""
    return f"\n\n[{CARD_TITLE}](#/{page}{UI_VIEW})"


def _source(model_id: str) -> str:
    return f"{_LOGGED}{model_id}"
