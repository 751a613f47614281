"""The test images of a run, for those who look at them; only here are the data themselves needed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mnist_pipeline.registry import evidence
from mnist_pipeline.system.errors import UserError
from mnist_pipeline.tracking.record import RunRecord


def find_test_images(runs: Sequence[RunRecord], *, num_images: int) -> npt.NDArray[np.uint8]:
    """Return the images that runs of one test split were scored on, uint8 (n, height, width).

    Args:
        runs: On the same data.
        num_images: That the runs have predictions of.

    Raises:
        UserError: They cannot be had here, or are not as many.
    """
    images = evidence.find_test_split(runs[0]).images
    if len(images) != num_images:
        raise UserError(f"the test split has {len(images):,} images, and the predictions are of {num_images:,}")
    return images
