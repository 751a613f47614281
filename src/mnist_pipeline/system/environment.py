"""The environment variables that libraries read when they are first imported."""

import os

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the command prints the run's address itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # with MLflow's own 7 a dead server blocks for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def prepare_libraries() -> None:
    """Keep MLflow from sending telemetry, and libraries from logging to the terminal and from retrying for minutes.

    Call it before they are imported; child processes inherit the settings. Variables that the user has set stay.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
