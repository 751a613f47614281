"""The commands that show pages in a browser: `ui` and `dashboard`."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline import composing, paths, store
from mnist_pipeline.commands.arguments import make_parser, require_free
from mnist_pipeline.config import without_password
from mnist_pipeline.errors import ConfigError


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, on 127.0.0.1."""
    parser = make_parser("ui", "Starts the MLflow UI on 127.0.0.1 over the store that train writes to.")
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_args(arguments)

    uri = store.resolve_uri(composing.compose(parsed.overrides).tracking)
    if store.is_server(uri):
        raise ConfigError(f"{without_password(uri)} is a server with a UI of its own: open that address in a browser")
    require_free(parsed.port)
    store.check(uri)
    store.create(uri)
    artifacts = store.artifacts_dir(uri)
    print(f"MLflow UI: http://127.0.0.1:{parsed.port}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", flush=True)
    mlflow = shutil.which("mlflow", path=str(Path(sys.executable).parent)) or "mlflow"
    served = ["--backend-store-uri", uri, *(["--default-artifact-root", artifacts.as_uri()] if artifacts else [])]
    os.execv(mlflow, [mlflow, "ui", *served, "--host", "127.0.0.1", "--port", str(parsed.port), "--workers", "1"])


def dashboard(arguments: Sequence[str]) -> None:
    """Run the `dashboard` command: Optuna's own dashboard over the studies of a storage, on 127.0.0.1."""
    parser = make_parser("dashboard", "Starts Optuna's dashboard on 127.0.0.1, over the study that was last worked on.")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080")
    help_text = "sweep.study= and sweep.storage= as for sweep name another one"
    parser.add_argument("overrides", nargs="*", metavar="sweep.KEY=VALUE", help=help_text)
    parsed = parser.parse_args(arguments)

    _, values, _ = composing.check_sweep(parsed.overrides)
    storage, study = values.get("storage"), values.get("study")
    folder = paths.mlruns_dir() / "optuna"
    if storage is None:
        journals = sorted(folder.glob(f"{study or '*'}.journal"), key=lambda path: path.stat().st_mtime)
        if not journals:
            raise ConfigError(f"no study is in {folder}: make one with mnist-pipeline sweep, or give sweep.storage=")
        storage = str(journals[-1])
    elif "://" not in storage and not Path(storage).is_file():
        raise ConfigError(f"sweep.storage={storage}: no such file")
    require_free(parsed.port)
    print(f"Optuna dashboard: http://127.0.0.1:{parsed.port}/ (Ctrl-C ends it)", flush=True)
    program = str(Path(sys.executable).parent / "optuna-dashboard")
    os.execv(program, [program, storage, "--host", "127.0.0.1", "--port", str(parsed.port)])
