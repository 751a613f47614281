"""The test images of a run, for those who look at them; only here are the data themselves needed."""

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException

from mnist_pipeline import composing
from mnist_pipeline.errors import ConfigError, UserError
from mnist_pipeline.registry import evidence
from mnist_pipeline.tracking import PastRun


def find_test_images(run: PastRun) -> npt.NDArray[np.uint8]:
    """Return the images that the run was scored on, uint8 (n, height, width).

    Raises:
        UserError: They cannot be had here.
    """
    try:
        config = composing.read_logged(run.read("config/config.yaml").decode())
    except (MlflowException, OSError, UnicodeDecodeError, ConfigError) as error:
        raise UserError(f"the configuration of {run.name} cannot be read") from error
    return evidence.find_test_split(config, run.tags.get("data.test_digest", "")).images
