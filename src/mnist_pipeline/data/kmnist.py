"""`data=kmnist`: cursive Japanese characters, in MNIST's format."""

from mnist_pipeline.data import published
from mnist_pipeline.data.dataset import Images
from mnist_pipeline.data.published import Mirror, Published, verified_files
from mnist_pipeline.system.secrets import Address

DIGESTS = {
    "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
    "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
}
"""SHA-256 of each file."""

CLASS_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def load(*, url: Address, timeout_sec: float, num_retries: int) -> Images:
    """Return Kuzushiji-MNIST (Clanuwat et al., 2018): uint8 (60000, 28, 28), and (10000, 28, 28) for the test.

    Args:
        url: Mirror of the four gzipped IDX files: the folder's address.
        timeout_sec: Seconds without an answer after which a download fails.
        num_retries: Further attempts per file.

    Raises:
        DataUnavailableError: The source does not have it.
        ValueError: An argument is wrong.
    """
    mirrors = [Mirror(str(url), {name: url.join(name) for name in DIGESTS})]
    form = Published("kmnist", ("kmnist", "KMNIST/raw", ""), (verified_files(DIGESTS),), "its four gzipped IDX files")
    return published.load(form, mirrors, timeout_sec=timeout_sec, num_retries=num_retries, class_names=CLASS_NAMES)
