"""The command `dashboard`."""

import contextlib
import os
from collections.abc import Sequence

from mnist_pipeline.cli.arguments import HERE, listen, make_parser
from mnist_pipeline.sweep import settings
from mnist_pipeline.sweep.storage import check, is_url, journal_path, list_journals
from mnist_pipeline.system import paths
from mnist_pipeline.system.errors import ConfigError
from mnist_pipeline.system.heavy_imports import heavy_imports
from mnist_pipeline.system.secrets import Address


def dashboard(arguments: Sequence[str]) -> None:
    """Run the `dashboard` command: Optuna's own dashboard over a storage, on 127.0.0.1, until a signal comes."""
    parser = make_parser("dashboard", "Starts Optuna's dashboard on 127.0.0.1, over the study that was last worked on.")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; 0: any that is free")
    help_text = "sweep.study= and sweep.storage= as for sweep name another one"
    parser.add_argument("overrides", nargs="*", metavar="sweep.KEY=VALUE", help=help_text)
    parsed = parser.parse_intermixed_args(arguments)

    _, config = settings.compose_sweep(parsed.overrides)
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
        web.run(app, listener, host=HERE, on_ready=lambda: print(line, flush=True))


def _find_journal(study: str | None) -> str:
    folder = paths.mlruns_dir() / "optuna"
    journals = sorted(list_journals(), key=lambda path: path.stat().st_mtime)
    if not journals:
        raise ConfigError(f"there is no study in {folder}: run mnist-pipeline sweep first, or give sweep.storage=")
    if study is None:
        return str(journals[-1])
    if journal_path(study) not in journals:
        names = sorted(path.stem for path in journals)
        raise ConfigError(f"sweep.study={study}: {folder} has no such study; expected {' or '.join(names)}")
    return str(journal_path(study))
