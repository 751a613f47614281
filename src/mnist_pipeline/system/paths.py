"""Where the project's folders are."""

import os
import tempfile
from pathlib import Path

from mnist_pipeline.system.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, or None where it was installed from a wheel."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "conf" / "config.yaml").is_file() else None


def conf_dir() -> Path:
    """Return the folder of the configuration: the checkout's, or else the copy inside the installed package."""
    root = checkout()
    return root / "conf" if root else _PACKAGE / "conf"


def home() -> Path:
    """Return the folder that holds `mlruns/` and `data/`.

    `MNIST_PIPELINE_HOME` names it; by default it is the root of the checkout, or the current folder where the package
    was installed from a wheel.
    """
    named = os.environ.get("MNIST_PIPELINE_HOME")
    return expand(named) if named else checkout() or Path.cwd()


def expand(named: str) -> Path:
    """Return the absolute path that `named` means; a `~` of nobody's is an ordinary name."""
    return Path(os.path.expanduser(named)).absolute()  # noqa: PTH111 (pathlib's raises for a user that is not there)


def mlruns_dir() -> Path:
    """Return the folder of the tracking store, its artifacts and everything else that runs leave behind."""
    return home() / "mlruns"


def checkpoints_dir() -> Path:
    """Return the folder of all checkpoints, one folder a run."""
    return mlruns_dir() / "checkpoints"


def require_writable(folder: Path) -> None:
    """Create `folder` where it is missing and prove that a file can be written into it.

    Raises:
        ConfigError: It cannot be created or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot write into {folder} ({reason}): set MNIST_PIPELINE_HOME to a folder that you can write into"
        ) from error
