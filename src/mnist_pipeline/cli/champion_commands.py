"""The commands that use the champion: `predict` and `serve`."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import STORE_HELP, listen, make_parser, require_output, require_store
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.registry import settings
from mnist_pipeline.serving import tables
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.text import printable


def predict(arguments: Sequence[str]) -> None:
    """Run the `predict` command.

    Raises:
        UserError: Files could not be used; the others are done.
    """
    parser = make_parser("predict", "Lets the champion classify the images in files.")
    parser.add_argument(
        "words", nargs="+", metavar="PATH", help=f"PNG, JPEG or NPZ files, folders of them; {STORE_HELP}"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="all rows, as .csv, .parquet or .json")
    help_text = "dark strokes on a bright ground: auto looks at the edges of each image (default)"
    parser.add_argument("--invert", choices=("auto", "yes", "no"), default="auto", help=help_text)
    parsed = parser.parse_intermixed_args(arguments)
    paths, overrides = _split(parsed.words)
    where = settings.read(overrides)
    require_output(parsed.output, formats=tables.FORMATS)
    require_store(where.tracking)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(tables.TableFile(parsed.output)) if parsed.output else None

        with heavy_imports():
            from mnist_pipeline.serving import champion, images
            from mnist_pipeline.serving import predict as prediction
            from mnist_pipeline.tracking import mlflow_store
        from mnist_pipeline.cli import console

        store = mlflow_store.MlflowStore(where.tracking)
        with store.reporting_errors():
            loaded = champion.load(store, where.model_name)
        result = prediction.predict(
            paths, loaded, invert=images.Invert(parsed.invert), output=output, on_bad=console.print_skipped
        )
    console.print_predictions(result, loaded, output=parsed.output)
    if result.num_bad:
        raise UserError(f"{result.num_bad:,} skipped, as said above; {result.num_images:,} images are done")


def serve(arguments: Sequence[str]) -> None:
    """Run the `serve` command: until a signal comes."""
    parser = make_parser("serve", "Serves the champion on 127.0.0.1, by MLflow's scoring server.")
    parser.add_argument("--port", type=int, default=5001, help="default: 5001; 0: any that is free")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=STORE_HELP)
    parsed = parser.parse_intermixed_args(arguments)
    where = settings.read(parsed.overrides)
    require_store(where.tracking)
    listener = listen(parsed.port)

    with heavy_imports():
        from mnist_pipeline.serving import champion
        from mnist_pipeline.serving import scoring_server as serving
        from mnist_pipeline.system import web
        from mnist_pipeline.tracking import mlflow_store

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        loaded = champion.load(store, where.model_name)
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        example = Path(scratch) / "example.json"
        example.write_text(loaded.example)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/invocations"
        lines = [
            f"ready: version {loaded.version} of {loaded.name} at {address} (Ctrl-C ends it)",
            f"curl -s {address} -H 'Content-Type: application/json' -d @{shlex.quote(str(example))}",
        ]
        app = serving.make_app(loaded)
        web.run(app, listener, on_ready=lambda: print("\n".join(map(printable, lines)), flush=True))


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell paths from overrides: a path that is there may have an equals sign in its name."""
    paths = [word for word in words if "=" not in word or os.path.exists(word)]  # noqa: PTH110 (pathlib's raises)
    if not paths:
        raise ConfigError("expected files or folders of images before the overrides")
    if "" in paths:
        raise ConfigError("an empty path: expected files or folders of images")
    return [Path(path) for path in paths], [word for word in words if word not in paths]
