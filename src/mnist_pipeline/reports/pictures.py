"""The test images of a run; only these need the data itself."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mnist_pipeline.config.sections import DataConfig
from mnist_pipeline.registry import evidence
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import RunRecord


def find_test_images(runs: Sequence[RunRecord], data: DataConfig, *, num_images: int) -> npt.NDArray[np.uint8]:
    """Return the test images of runs on the same data, uint8 (n, height, width).

    Args:
        runs: On the same data.
        data: The data set that the command names.
        num_images: How many the runs have predictions for.

    Raises:
        UserError: They are not available here, or their number differs.
    """
    images = evidence.find_test_split(runs[0], data).images
    if len(images) != num_images:
        raise UserError(f"the test split has {len(images):,} images, but there are predictions for {num_images:,}")
    return images
