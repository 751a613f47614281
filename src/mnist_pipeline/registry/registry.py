"""A registered model and its ledger."""

from mnist_pipeline.registry.comparison import Budget, on_split
from mnist_pipeline.registry.ledger import Ledger
from mnist_pipeline.tracking import find_run
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.record import RunRecord
from mnist_pipeline.tracking.registered_models import CHAMPION, RegisteredModel


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

    def budget(self, test_digest: str, *, alpha: float) -> Budget:
        """Return the budget that comparisons on a test split have left."""
        spent = [entry.spent for entry in self.ledger.entries() if entry.spent]
        return Budget(alpha=alpha, spent=on_split(spent, test_digest))
