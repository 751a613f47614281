"""The test images of a run, for those who look at them; only here are the data themselves needed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mnist_pipeline.registry import evidence
from mnist_pipeline.tracking import PastRun


def find_test_images(runs: Sequence[PastRun]) -> npt.NDArray[np.uint8]:
    """Return the images that runs of one test split were scored on, uint8 (n, height, width).

    Raises:
        UserError: They cannot be had here.
    """
    return evidence.find_test_split(runs[0]).images
