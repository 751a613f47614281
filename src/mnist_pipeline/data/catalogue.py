"""The catalogue of data sets: which one a configuration names."""

from mnist_pipeline.config.sections import DataConfig, MnistConfig
from mnist_pipeline.data import mnist
from mnist_pipeline.data.dataset import Attempt, Dataset, Found, digest_arrays
from mnist_pipeline.data.digits import digits_arrays
from mnist_pipeline.data.splits import split
from mnist_pipeline.system import paths


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` describes.

    Raises:
        MnistUnavailableError: MNIST is requested and no source has it.
    """
    return split(find(config), config)


def find(config: DataConfig) -> Found:
    """Return the arrays of the data set that `config` names.

    Raises:
        MnistUnavailableError: MNIST is requested and no source has it.
    """
    if isinstance(config, MnistConfig):
        arrays, attempts = mnist.find(config, home=paths.home())
    else:
        arrays, attempts = digits_arrays(), [Attempt("scikit-learn", "found")]
    digest = digest_arrays(*(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")))
    return Found(name=config.name, arrays=arrays, digest=digest, attempts=tuple(attempts))
