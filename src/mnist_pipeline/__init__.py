"""An experiment-tracking pipeline for MNIST, composed by Hydra, tracked in MLflow."""

import os

# Read by the libraries when they are first imported, by this process or a child. What the user set wins.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the command prints the run's address itself
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7, with growing pauses, hang for minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",  # the steps are too small for a GPU, and a CPU gives the same bits every time
}.items():
    os.environ.setdefault(_name, _value)
