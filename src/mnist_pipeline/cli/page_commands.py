"""The commands that show pages in a browser: `ui` and `dashboard`."""

import contextlib
import os
import sys
from collections.abc import Sequence

from mnist_pipeline.cli.arguments import listen, listen_by_default, make_parser
from mnist_pipeline.cli.heavy_imports import heavy_imports
from mnist_pipeline.config import compose
from mnist_pipeline.sweep import space
from mnist_pipeline.sweep.storage import check, is_url, journal_path
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.system.text import printable
from mnist_pipeline.tracking import store

DEFAULT_PORT = 5000


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, on 127.0.0.1, until a signal comes."""
    parser = make_parser("ui", "Starts the MLflow UI on 127.0.0.1 over the store that train writes to.")
    help_text = f"default: {DEFAULT_PORT}, or another one where that is taken; 0: any that is free"
    parser.add_argument("--port", type=int, help=help_text)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_intermixed_args(arguments)

    config = compose.compose(parsed.overrides).tracking
    uri = store.resolve_uri(config)
    if store.is_server(uri):
        page = Address(uri.connection()[0])
        raise ConfigError(f"{page} is a server with a UI of its own: open that address in a browser")
    listener = listen_by_default(DEFAULT_PORT) if parsed.port is None else listen(parsed.port)
    store.check(uri)
    if parsed.port is None and listener.getsockname()[1] != DEFAULT_PORT:
        print(f"port {DEFAULT_PORT} is taken: another one is used", file=sys.stderr)

    with heavy_imports():
        from mnist_pipeline.system import web
        from mnist_pipeline.tracking import mlflow_store, mlflow_ui

    opened = mlflow_store.MlflowStore(config)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    overviews = {printable(name): page for name, page in opened.overviews(address).items()}
    width = max(map(len, overviews), default=0) + 2
    pages = [f"{name:<{width}}{page}" for name, page in overviews.items()]
    lines = [f"MLflow UI: {address}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", *pages]
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it, and no failure
        web.run(mlflow_ui.make_app(uri), listener, on_ready=lambda: print("\n".join(lines), flush=True))


def dashboard(arguments: Sequence[str]) -> None:
    """Run the `dashboard` command: Optuna's own dashboard over a storage, on 127.0.0.1, until a signal comes."""
    parser = make_parser("dashboard", "Starts Optuna's dashboard on 127.0.0.1, over the study that was last worked on.")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; 0: any that is free")
    help_text = "sweep.study= and sweep.storage= as for sweep name another one"
    parser.add_argument("overrides", nargs="*", metavar="sweep.KEY=VALUE", help=help_text)
    parsed = parser.parse_intermixed_args(arguments)

    base, values, fixed = compose.check_sweep(parsed.overrides)
    config = space.read(values, base, fixed=fixed)
    storage = config.storage or _find_journal(config.study)
    if not is_url(storage):
        storage = str(paths.expand(Address(storage).reveal()))
        if not os.path.lexists(storage):
            raise ConfigError(f"sweep.storage={storage}: there is no such file; give a journal, or a database's URL")
    check(storage)
    listener = listen(parsed.port)

    with heavy_imports():
        from mnist_pipeline.sweep import dashboard as pages
        from mnist_pipeline.system import web

    app = pages.make_app(storage, config.study)
    line = f"Optuna dashboard: http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends it)"
    with contextlib.suppress(KeyboardInterrupt):
        web.run(app, listener, on_ready=lambda: print(line, flush=True))


def _find_journal(study: str | None) -> str:
    folder = paths.mlruns_dir() / "optuna"
    journals = sorted(folder.glob("*.journal"), key=lambda path: path.stat().st_mtime)
    if not journals:
        raise ConfigError(f"no study is in {folder}: make one with mnist-pipeline sweep, or give sweep.storage=")
    if study is None:
        return str(journals[-1])
    if journal_path(study) not in journals:
        names = sorted(path.stem for path in journals)
        raise ConfigError(f"sweep.study={study}: {folder} has no such study; expected {' or '.join(names)}")
    return str(journal_path(study))
