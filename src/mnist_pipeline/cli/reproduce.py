"""The command `reproduce`."""

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import RUN_HELP, STORE_HELP, make_parser, require_store, split_words
from mnist_pipeline.cli.errors import ReportedError
from mnist_pipeline.registry import settings
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.heavy_imports import begin, heavy_imports


def reproduce(arguments: Sequence[str]) -> None:
    """Run the `reproduce` command: train a tracked run again, and say whether the result is the same to the bit.

    Raises:
        UserError: The run cannot be rebuilt, or its reproduction differs.
    """
    parser = make_parser("reproduce", "Trains a tracked run again, as a new run, and compares every bit of the result.")
    parser.add_argument("words", nargs="+", metavar="RUN [KEY=VALUE]", help=f"a run: {RUN_HELP}; {STORE_HELP}")
    parser.add_argument(
        "--worktree", action="store_true", help="with the code and the versions of the run, in a git worktree"
    )
    parsed = parser.parse_intermixed_args(arguments)
    named, overrides = split_words(parsed.words)
    if len(named) != 1:
        raise ConfigError(f"expected one run: got {len(named)}")
    where = settings.read(overrides)
    require_store(where.tracking, to_write=True)
    begin()

    with heavy_imports():
        from mnist_pipeline.cli import console
        from mnist_pipeline.pipeline import rebuild, reproduction, request, worktree
        from mnist_pipeline.reports import reproduction_page
        from mnist_pipeline.reports import terminal as view
        from mnist_pipeline.tracking import find_run, mlflow_store, mlflow_tracker, runs

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        original = find_run.find(store, named[0], model_name=where.model_name)
        reproduction.require_kind(original)
        if parsed.worktree:
            _reproduce_in(worktree.bring_back(original), original.run_id, store.uri, overrides)
            return
        tracking = dataclasses.replace(where.tracking, experiment=runs.experiment_name(store, original))
        asked = request.prepare(rebuild.rebuild(original, tracking), [])
        changes = rebuild.find_changes(original, asked)
        view.print_page(reproduction_page.lay_out_changes(original, changes, uri=store.uri))
        tracker = mlflow_tracker.MlflowTracker(tracking)
        before = tracker.read_training(original.run_id).points
        with console.EpochProgress(len(before)) as progress:
            new_id = reproduction.train_again(original, asked, tracker, num_epochs=len(before), on_epoch=progress)
        verdict = reproduction.judge(
            store, original, new_id, changes=changes, epochs=(before, tracker.read_training(new_id).points)
        )
        runs.log_verdict(store, verdict.to_json(), (original.run_id, new_id), is_identical=verdict.is_identical)
    view.print_page(reproduction_page.lay_out_results(original, verdict))
    if not verdict.is_identical:
        first = next(one for one in verdict.results if not one.is_same)
        raise UserError(f"{original.label} is not reproduced: {first.part}: {first.detail}")


def _reproduce_in(folder: Path, run_id: str, uri: str, overrides: Sequence[str]) -> None:
    """Run this command in another checkout, on the same store and data."""
    command = [str(folder / ".venv" / "bin" / "mnist-pipeline"), "reproduce", run_id, *overrides]
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # it could name this checkout
    environment = {**own, "MNIST_PIPELINE_HOME": str(paths.home()), "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise ReportedError(UserError(f"{folder}: exit code {done.returncode}"))
