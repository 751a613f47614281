"""A registered model and its ledger."""

from mnist_pipeline.registry.ledger import Ledger
from mnist_pipeline.registry.settings import select
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking import find_run
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord
from mnist_pipeline.tracking.registered_models import CHAMPION, RegisteredModel, list_models


class Registry:
    """A registered model and its ledger, in one store."""

    def __init__(self, store: MlflowStore, name: str) -> None:
        self.store = store
        self.name = name
        self.model = RegisteredModel(store, name)
        self.ledger = Ledger(store, name)

    def champion_run(self) -> RunRecord | None:
        """Return the champion's run; None if there is no champion.

        Raises:
            UserError: The run is gone for good.
        """
        champion = self.model.named(CHAMPION)
        return None if champion is None else find_run.find_run_of_version(self.store, self.model.run_of(champion))


def propose_champion(store: MlflowStore) -> str:
    """Return the next step where a registered model has no champion."""
    others = [model.name for model in list_models(store) if model.named(CHAMPION) is not None]
    if others:
        return f"{others[0]} has one: {select(others[0].removesuffix('-classifier'))}"
    return f"promote a run first ({command('promote')})"
