"""The command `serve`."""

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_pipeline.cli.arguments import WAIT_HELP, add_address, describe_address, listen, make_parser, require_store
from mnist_pipeline.registry import settings
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.system.text import printable


def serve(arguments: Sequence[str]) -> None:
    """Run the `serve` command: until a signal comes."""
    parser = make_parser("serve", "Serves the champion by MLflow's scoring server.")
    add_address(parser, port_help="default: 5001; 0: any that is free", port=5001)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=WAIT_HELP)
    parsed = parser.parse_intermixed_args(arguments)
    where = settings.read(parsed.overrides)
    require_store(where.tracking, to_write=False)
    listener = listen(parsed.port, host=parsed.host)

    with heavy_imports():
        from mnist_pipeline.serving import champion
        from mnist_pipeline.serving import picture_endpoint as pictures
        from mnist_pipeline.serving import scoring_server as serving
        from mnist_pipeline.system import web
        from mnist_pipeline.tracking import mlflow_store

    store = mlflow_store.MlflowStore(where.tracking)
    with store.reporting_errors():
        loaded = champion.load(store, where.model_name)
    with tempfile.TemporaryDirectory(prefix="mnist-pipeline-") as scratch:
        example, picture = Path(scratch) / "example.json", Path(scratch) / "example.png"
        example.write_text(loaded.example)
        pictures.save_example(loaded, picture)
        address = describe_address(listener, parsed.host, what="use the model")
        lines = [
            f"ready: version {loaded.version} of {loaded.name} at {address}/invocations (Ctrl-C ends it)",
            f"curl -s {address}/invocations -H 'Content-Type: application/json' -d @{shlex.quote(str(example))}",
            f"curl -s {address}{pictures.PATH} -F picture=@{shlex.quote(str(picture))}",
        ]
        app = serving.make_app(loaded)
        web.run(app, listener, host=parsed.host, on_ready=lambda: print("\n".join(map(printable, lines)), flush=True))
