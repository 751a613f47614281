"""`data=fashion_mnist`: Zalando's articles of clothing, in MNIST's format."""

from mnist_pipeline.data import published
from mnist_pipeline.data.dataset import Images
from mnist_pipeline.data.published import Mirror, Published, verified_files
from mnist_pipeline.system.secrets import Address

DIGESTS = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
"""SHA-256 of each file."""

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip


def load(*, url: Address, second_url: Address, timeout_sec: float, num_retries: int) -> Images:
    """Return Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): uint8 (60000, 28, 28), and (10000, 28, 28) for the test.

    Args:
        url: Mirror of the four gzipped IDX files: the folder's address.
        second_url: Another one, tried next.
        timeout_sec: Seconds without an answer after which a download fails.
        num_retries: Further attempts per file before the next mirror is tried.

    Raises:
        DataUnavailableError: No source has it.
        ValueError: An argument is wrong.
    """
    mirrors = [Mirror(str(one), {name: one.join(name) for name in DIGESTS}) for one in (url, second_url)]
    form = Published(
        "fashion_mnist",
        ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", ""),
        (verified_files(DIGESTS),),
        "its four gzipped IDX files",
    )
    return published.load(form, mirrors, timeout_sec=timeout_sec, num_retries=num_retries, class_names=CLASS_NAMES)
