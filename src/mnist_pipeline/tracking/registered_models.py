"""The registered models in MLflow's registry: their versions, and the versions that their aliases name."""

import contextlib
import json
from collections.abc import Iterator, Mapping

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from mnist_pipeline.system.errors import GoneError, UserError
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking.artifacts import ArtifactFolder, is_absent
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.store import UI_VIEW

CHAMPION = "champion"
CHALLENGER = "challenger"
CARD_TAG = "model_card"
CARD_TITLE = "Model card"
_LOGGED = "models:/"


class RegisteredModel:
    """A registered model in an MLflow store; it may not exist yet."""

    def __init__(self, store: MlflowStore, name: str) -> None:
        self.name = name
        self.address = store.address(f"models/{name}")
        self._client = store.client
        self._tracking_uri = store.connected

    def register(self, run_id: str, model_id: str) -> int:
        """Return the version of the run's model; create one if it has none."""
        if self._registered() is None:
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
        version = self.version_of(run_id, model_id)
        if version is None:
            made = self._client.create_model_version(
                self.name, source=_source(model_id), run_id=run_id, model_id=model_id
            )
            version = int(made.version)
        # MLflow's pages of the run and of its logged model show the version by this tag.
        link = json.dumps([{"name": self.name, "version": str(version)}])
        self._client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: link})
        return version

    def version_of(self, run_id: str, model_id: str) -> int | None:
        """Return the version of the run's model; the first one if there are several."""
        found = self._client.search_model_versions(f"name = '{self.name}' and run_id = '{run_id}'")
        return min((int(version.version) for version in found if version.source == _source(model_id)), default=None)

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
        source = self._get(version).source or ""
        try:
            if source.startswith(_LOGGED):
                address = self._client.get_logged_model(source.removeprefix(_LOGGED)).artifact_location
            else:  # registered by another program
                address = self._client.get_model_version_download_uri(self.name, str(version))
        except MlflowException as error:
            if not is_absent(error):
                raise
            raise GoneError(f"the model of version {version} of {self.name} was deleted") from error
        return ArtifactFolder(address, tracking_uri=self._tracking_uri)

    def aliases(self) -> dict[int, list[str]]:
        """Return the aliases of every version that has any, in alphabetical order."""
        found: dict[int, list[str]] = {}
        for alias, version in sorted((self._registered() or {}).items()):
            found.setdefault(int(version), []).append(alias)
        return found

    def versions(self) -> list[int]:
        """Return all versions, the oldest first."""
        return sorted(int(version.version) for version in self._client.search_model_versions(f"name = '{self.name}'"))

    def link_card(self, version: int, page: str) -> None:
        """Link the version's page to its model card, a page of the MLflow UI."""
        self._client.set_model_version_tag(self.name, str(version), CARD_TAG, page)
        text = self._get(version).description or ""
        if CARD_TITLE not in text:
            self._client.update_model_version(self.name, str(version), description=f"{text}{link_to_card(page)}")

    def named(self, alias: str) -> int | None:
        """Return the version that the alias names."""
        registered = self._registered()
        version = None if registered is None else registered.get(alias)
        return None if version is None else int(version)

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
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise GoneError(f"{what} was deleted: run the same command again") from error

    def _registered(self) -> dict[str, str] | None:
        try:
            aliases: dict[str, str] = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # not a valid name
                return None
            raise
        return aliases

    def _get(self, version: int) -> ModelVersion:
        try:
            return self._client.get_model_version(self.name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = ", ".join(map(str, self.versions())) or "none"
            raise UserError(f"{self.name} has no version {version}: it has {known}") from error


def list_models(store: MlflowStore) -> list[RegisteredModel]:
    """Return all registered models, sorted by name."""
    names: list[str] = []
    token = None
    while True:
        page = store.client.search_registered_models(page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return [RegisteredModel(store, name) for name in sorted(names)]


def find_versions(store: MlflowStore, run_id: str) -> list[tuple[RegisteredModel, int]]:
    """Return every version that came from the run, of any registered model."""
    found = store.client.search_model_versions(f"run_id = '{run_id}'")
    return sorted(
        ((RegisteredModel(store, version.name), int(version.version)) for version in found),
        key=lambda one: (one[0].name, one[1]),
    )


def link_to_card(page: str) -> str:
    """Return the end of a Markdown description that links to a model card."""
    return f"\n\n[{CARD_TITLE}](#/{page}{UI_VIEW})"


def _source(model_id: str) -> str:
    return f"{_LOGGED}{model_id}"
