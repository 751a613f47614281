"""The command `predict`."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import WAIT_HELP, make_parser, require_output, require_store
from mnist_pipeline.registry import settings
from mnist_pipeline.serving import tables
from mnist_pipeline.system.errors import ConfigError, UserError
from mnist_pipeline.system.heavy_imports import heavy_imports


def predict(arguments: Sequence[str]) -> None:
    """Run the `predict` command.

    Raises:
        UserError: Files could not be used; the others are classified.
    """
    parser = make_parser("predict", "Classifies the images in files with the champion.")
    parser.add_argument("words", nargs="+", metavar="PATH", help=f"pictures, NPZ files, folders of them; {WAIT_HELP}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="all rows, as .csv, .parquet or .json")
    help_text = "dark strokes on a bright ground: auto looks at the edges of each image (default)"
    parser.add_argument("--invert", choices=("auto", "yes", "no"), default="auto", help=help_text)
    parsed = parser.parse_intermixed_args(arguments)
    paths, overrides = _split(parsed.words)
    where = settings.read(overrides)
    require_output(parsed.output, formats=tables.FORMATS)
    require_store(where.tracking, to_write=False)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(tables.TableFile(parsed.output)) if parsed.output else None

        with heavy_imports():
            from mnist_pipeline.data import pictures
            from mnist_pipeline.serving import champion
            from mnist_pipeline.serving import predict as prediction
            from mnist_pipeline.tracking import mlflow_store
        from mnist_pipeline.cli import console

        store = mlflow_store.MlflowStore(where.tracking)
        with store.reporting_errors():
            loaded = champion.load(store, where.model_name)
        result = prediction.predict(
            paths, loaded, invert=pictures.Invert(parsed.invert), output=output, on_bad=console.print_skipped
        )
    console.print_predictions(result, loaded, output=parsed.output)
    if result.num_bad:
        raise UserError(f"{result.num_bad:,} skipped (see above); {result.num_images:,} images are classified")


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split arguments into paths and overrides: an existing path may have an equals sign in its name."""
    paths = [word for word in words if "=" not in word or os.path.exists(word)]  # noqa: PTH110 (pathlib's raises)
    if not paths:
        raise ConfigError("expected files or folders of images before the overrides")
    if "" in paths:
        raise ConfigError("an empty path: expected files or folders of images")
    return [Path(path) for path in paths], [word for word in words if word not in paths]
