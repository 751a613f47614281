"""A run, from its request to its result: found, resumed or started."""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mnist_pipeline.pipeline.checkpoints import Checkpoints, claim
from mnist_pipeline.pipeline.request import Request
from mnist_pipeline.system.heavy_imports import import_keras, importing
from mnist_pipeline.tracking.record import Kind, Point, RecordError, RunRecord, Tag
from mnist_pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mnist_pipeline.train.epochs import Epoch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        request: That asked for it.
        metrics: The last value of every metric, as logged.
        predictions: One row per test image, as in `Evaluation`.
        digest: SHA-256 of the weights, of every metric but the times, and of the predictions.
    """

    run_id: str
    name: str
    address: str
    request: Request
    metrics: dict[str, float]
    predictions: pd.DataFrame
    digest: str


Trainer = Callable[[Checkpoints], Iterator[Point]]
"""Trains a run elsewhere: resumes from the checkpoints, writes further ones, and yields every epoch."""


def execute(
    request: Request,
    tracker: Tracker,
    *,
    on_epoch: "Callable[[Epoch], None] | None" = None,
    trainer: Trainer | None = None,
) -> RunResult:
    """Return the result of the requested run: find it if it is finished, resume it if it was interrupted, or start it.

    Args:
        request: Of the run.
        tracker: That tracks it.
        on_epoch: Called after each epoch that is trained here.
        trainer: Trains it elsewhere; by default it is trained here.

    Raises:
        UserError: The run is already in progress, the loss is not finite, there is too little space or memory, or
            TensorFlow already runs with another number of threads.
    """
    fingerprint = request.tags[Tag.FINGERPRINT]
    with claim(fingerprint, wait=request.config.wait) as checkpoints:
        if tracker.find_finished({Tag.RESUME_ID: checkpoints.id}):
            checkpoints.clear()  # its command was killed between its last two steps
        result = None if request.config.force else _recall(request, tracker)
        if result is None:
            if "keras" not in sys.modules:
                with importing():  # only now, because to find a result takes no TensorFlow
                    import_keras()
            from mnist_pipeline.pipeline.stages import carry_out

            result = carry_out(request, tracker, checkpoints, on_epoch=on_epoch, trainer=trainer)
        checkpoints.clear()
    return result


def _recall(request: Request, tracker: Tracker) -> RunResult | None:
    """Return the result of the same run if it has finished before; None if there is none that can be read."""
    # A run that fell back to these data is not the one that was requested for them: it cannot be promoted.
    keys = (Tag.FINGERPRINT, Tag.DATA_REQUESTED)
    past = tracker.find_finished({Tag.KIND: Kind.TRAIN, **{key: request.tags[key] for key in keys}})
    if past is None:
        return None
    try:
        predictions = past.read_predictions()
    except RecordError as error:
        _log.warning("run %s is finished, but does not count: %s", past.name, error)
        return None
    _log.info("done      run %s has the same fingerprint; force=true trains again, as a new run", past.name)
    return _result_of(past, request, predictions)


def _result_of(past: RunRecord, request: Request, predictions: pd.DataFrame) -> RunResult:
    return RunResult(
        run_id=past.run_id,
        name=past.name,
        address=past.address,
        request=request,
        metrics=dict(past.metrics),
        predictions=predictions,
        digest=past.tags[Tag.RESULT_DIGEST],
    )
