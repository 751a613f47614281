"""The folders of the project."""

import os
import tempfile
from pathlib import Path

from mnist_pipeline.system.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, or None if it was installed from a wheel."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "conf" / "config.yaml").is_file() else None


def conf_dir() -> Path:
    """Return the folder of the configuration: the checkout's, or the copy inside the installed package."""
    root = checkout()
    return root / "conf" if root else _PACKAGE / "conf"


def home() -> Path:
    """Return the folder that holds `mlruns/` and `data/`.

    `MNIST_PIPELINE_HOME` names it; by default it is the root of the checkout, or the current folder if the package was
    installed from a wheel.
    """
    named = os.environ.get("MNIST_PIPELINE_HOME")
    return expand(named) if named else checkout() or Path.cwd()


def expand(named: str) -> Path:
    """Return the absolute path that `named` means; a `~user` that does not exist is an ordinary name."""
    return Path(os.path.expanduser(named)).absolute()  # noqa: PTH111 (pathlib raises for an unknown user)


def mlruns_dir() -> Path:
    """Return the folder of the tracking store, its artifacts, the studies and the checkpoints."""
    return home() / "mlruns"


def checkpoints_dir() -> Path:
    """Return the folder of all checkpoints, one folder per run."""
    return mlruns_dir() / "checkpoints"


def require_writable(folder: Path) -> None:
    """Create `folder` if it is missing, and check that a file can be written to it.

    Raises:
        ConfigError: It cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot write to {folder} ({reason}): set MNIST_PIPELINE_HOME to a writable folder"
        ) from error
