"""The commands that show pages in a browser: `ui` and `dashboard`."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline import composing, paths, store
from mnist_pipeline.commands.arguments import listen, listen_by_default, make_parser, require_free
from mnist_pipeline.commands.importing import heavy_imports
from mnist_pipeline.config import without_password
from mnist_pipeline.errors import ConfigError
from mnist_pipeline.sweep import storage as sweep_storage

DEFAULT_PORT = 5000


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, on 127.0.0.1, until a signal comes."""
    parser = make_parser("ui", "Starts the MLflow UI on 127.0.0.1 over the store that train writes to.")
    help_text = f"default: {DEFAULT_PORT}, or another one where that is taken; 0: any that is free"
    parser.add_argument("--port", type=int, help=help_text)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_intermixed_args(arguments)

    config = composing.compose(parsed.overrides).tracking
    uri = store.resolve_uri(config)
    if store.is_server(uri):
        raise ConfigError(f"{without_password(uri)} is a server with a UI of its own: open that address in a browser")
    listener = listen_by_default(DEFAULT_PORT) if parsed.port is None else listen(parsed.port)
    store.check(uri)
    if parsed.port is None and listener.getsockname()[1] != DEFAULT_PORT:
        print(f"port {DEFAULT_PORT} is taken: another one is used", file=sys.stderr)

    with heavy_imports():
        from mnist_pipeline import mlflow_store, mlflow_ui, web

    opened = mlflow_store.MlflowStore(config)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    overviews = opened.overviews(address)
    width = max(map(len, overviews), default=0) + 2
    pages = [f"{name:<{width}}{page}" for name, page in overviews.items()]
    lines = [f"MLflow UI: {address}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", *pages]
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it, and no failure
        web.run(mlflow_ui.make_app(uri), listener, on_ready=lambda: print("\n".join(lines), flush=True))


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
    elif not sweep_storage.is_url(storage):
        storage = str(paths.expand(storage))
        if not Path(storage).exists():
            raise ConfigError(f"sweep.storage={storage}: no such file")
    sweep_storage.check(storage)  # the dashboard would create Optuna's tables in whatever database it is given
    require_free(parsed.port)
    print(f"Optuna dashboard: http://127.0.0.1:{parsed.port}/ (Ctrl-C ends it)", flush=True)
    program = str(Path(sys.executable).parent / "optuna-dashboard")
    os.execv(program, [program, storage, "--host", "127.0.0.1", "--port", str(parsed.port)])
