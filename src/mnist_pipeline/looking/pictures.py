"""The test images of a run, for those who look at them; only here are the data themselves needed."""

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException

from mnist_pipeline import composing
from mnist_pipeline.errors import ConfigError, UserError
from mnist_pipeline.registry import evidence
from mnist_pipeline.tracking import PastRun


def find_test_images(runs: Sequence[PastRun], *, num_images: int) -> npt.NDArray[np.uint8]:
    """Return the images that runs were scored on, uint8 (n, height, width), by the first configuration that is whole.

    Args:
        runs: On the same data.
        num_images: That the runs have predictions of.

    Raises:
        UserError: They cannot be had here, or are not as many.
    """
    for run in runs:
        with contextlib.suppress(MlflowException, OSError, UnicodeDecodeError, ConfigError):
            config = composing.read_logged(run.read("config/config.yaml").decode())
            images = evidence.find_test_split(config, run.tags.get("data.test_digest", "")).images
            if len(images) != num_images:
                raise UserError(f"the test split has {len(images):,} images, and the predictions are of {num_images:,}")
            return images
    raise UserError("the configuration of no run can be read")
