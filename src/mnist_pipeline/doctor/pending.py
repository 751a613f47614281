"""Results that a tracking server has not got yet."""

from collections.abc import Iterator
from functools import partial

from mnist_pipeline.doctor.finding import Finding, Remedy
from mnist_pipeline.system.hints import command
from mnist_pipeline.tracking import outbox
from mnist_pipeline.tracking.mlflow_store import MlflowStore
from mnist_pipeline.tracking.outbox import Pending


def find(opened: MlflowStore) -> Iterator[Finding]:
    """Yield the runs with an outbox that no process holds."""
    for left in outbox.list_left():
        if left.uri != str(opened.uri):
            what = (
                f"a part of run {left.run_id} waits for {left.uri}: "
                f"{command('doctor', '--fix', f'tracking.uri={left.uri}')}"
            )
            yield Finding(Remedy.none, what)
            continue
        what = f"a part of run {left.run_id} waits to be uploaded: upload it"
        yield Finding(Remedy.fix, what, partial(_send, opened, left))


def _send(opened: MlflowStore, left: Pending) -> str:
    outbox.send_left(opened, left)
    return f"run {left.run_id} is uploaded"
