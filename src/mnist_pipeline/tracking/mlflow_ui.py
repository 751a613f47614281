"""MLflow's UI over a store, as an application in this process.

`mlflow ui` would start eight more processes for generative AI jobs, and end with a traceback.
"""

import importlib.resources
import json
import os
import warnings
from collections.abc import Sequence

from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mnist_pipeline.system import paths
from mnist_pipeline.system.secrets import Address
from mnist_pipeline.tracking import store


def make_app(uri: Address, *, overviews: Sequence[str]) -> ASGIApp:
    """Return MLflow's tracking server, with its UI, over the store; only once per process.

    Args:
        uri: Of the store.
        overviews: Ids of the experiments whose runs are listed in our view of them.
    """
    # Before MLflow is imported, which reads them. `web.run` refuses other hosts and origins before MLflow is asked.
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = "*"
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

    return _with_overviews(app, overviews)


def _with_overviews(app: ASGIApp, experiment_ids: Sequence[str]) -> ASGIApp:
    """Return `app` with a script in its page that shows our view of an experiment."""
    script = importlib.resources.files(__package__).joinpath("overview.js").read_text(encoding="utf-8")
    script = script.replace("EXPERIMENTS", json.dumps(list(experiment_ids)))

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            page = importlib.resources.files("mlflow.server").joinpath("js/build/index.html").read_text("utf-8")
            answered: ASGIApp = HTMLResponse(page.replace("</head>", f"<script>{script}</script></head>", 1))
            await answered(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer
