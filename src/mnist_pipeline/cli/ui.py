"""The command `ui`."""

import contextlib
import sys
from collections.abc import Sequence

from mnist_pipeline.cli.arguments import add_address, describe_address, listen, listen_by_default, make_parser
from mnist_pipeline.config import compose
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.system.text import printable
from mnist_pipeline.tracking import store

DEFAULT_PORT = 5000


def ui(arguments: Sequence[str]) -> None:
    """Run the `ui` command: MLflow's own UI over the store, until a signal comes."""
    parser = make_parser("ui", "Starts the MLflow UI over the store that train writes to.")
    help_text = f"default: {DEFAULT_PORT}, or another port if that one is taken; 0: any free port"
    add_address(parser, port_help=help_text)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="another store, as for train")
    parsed = parser.parse_intermixed_args(arguments)

    config = compose.compose(parsed.overrides).tracking
    uri = store.resolve_uri(config)
    if store.is_server(uri):
        page = Address(uri.connection()[0])
        raise ConfigError(f"{page} is a server with its own UI: open that address in a browser")
    is_default = parsed.port is None
    listener = (
        listen_by_default(DEFAULT_PORT, host=parsed.host) if is_default else listen(parsed.port, host=parsed.host)
    )
    store.check(uri, to_write=False)
    if parsed.port is None and listener.getsockname()[1] != DEFAULT_PORT:
        print(f"port {DEFAULT_PORT} is taken: another one is used", file=sys.stderr)

    with heavy_imports():
        from mnist_pipeline.system import web
        from mnist_pipeline.tracking import mlflow_store, mlflow_ui

    opened = mlflow_store.MlflowStore(config)
    address = describe_address(listener, parsed.host, what="read and write this store")
    overviews = {printable(name): page for name, page in opened.overviews(address).items()}
    width = max(map(len, overviews), default=0) + 2
    pages = [f"{name:<{width}}{page}" for name, page in overviews.items()]
    lines = [f"MLflow UI: {address}/#/experiments{store.UI_VIEW} (Ctrl-C ends it)", *pages]
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends, not a failure
        app = mlflow_ui.make_app(uri, overviews=list(opened.list_experiments().values()))
        web.run(app, listener, host=parsed.host, on_ready=lambda: print("\n".join(lines), flush=True))
