"""MLflow's UI over a store, as an application in this process.

`mlflow ui` would start eight more processes for generative AI jobs, and end with a traceback.
"""

import os
import warnings

from starlette.types import ASGIApp

from mnist_pipeline.system import paths
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store


def make_app(uri: Address) -> ASGIApp:
    """Return MLflow's tracking server, with its UI, over the store; only once per process."""
    from mlflow.server import constants

    artifacts = store.artifacts_dir(uri)
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri.reveal()
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts.as_uri() if artifacts else "mlflow-artifacts:/"
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = str(artifacts or paths.mlruns_dir() / "artifacts")
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from starlette, about MLflow's imports
        from mlflow.server.fastapi_app import app  # imported here, because it reads the environment

    served: ASGIApp = app
    return served
