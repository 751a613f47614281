"""The environment variables that libraries read when they are first imported."""

import os
import tempfile

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the command prints the run's address itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # with MLflow's own 7 a dead server blocks for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


_OURS = {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
"""Settings without which the commands do not work; a notebook leaves others to the programs that it starts."""

_FOREIGN = (
    "TF_USE_LEGACY_KERAS",  # another Keras
    "MLFLOW_REGISTRY_URI",  # models and the ledger of their decisions belong in one store
    "MLFLOW_ACTIVE_MODEL_ID",  # MLflow would add our metrics to another program's model
    *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
)
"""Settings that other programs leave behind, and that must not reach a run."""


def prepare_libraries() -> None:
    """Keep MLflow from sending telemetry, and libraries from logging to the terminal and from retrying for minutes.

    Call it before they are imported; child processes inherit the settings. Variables that the user has set stay, except
    for those that would break a run.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_OURS)
    for name in _FOREIGN:
        os.environ.pop(name, None)
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (pathlib raises)
        os.environ["HOME"] = tempfile.gettempdir()  # MLflow cannot be imported without a home
