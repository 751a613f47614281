"""The commands that messages propose, written as the person at the terminal types them."""

import os

CLUSTER_EXTRA = "it comes with the extra cluster: pip install 'mnist-pipeline[cluster]', or make with CLUSTER=1"
"""Where Ray and the driver of PostgreSQL come from, for messages."""


def command(name: str, *words: str) -> str:
    """Return a command of this package: with `make` if make started this process, else as `mnist-pipeline`.

    Args:
        name: Of the command.
        words: Its arguments, as a shell reads them.
    """
    if "MAKELEVEL" not in os.environ:
        return " ".join(["mnist-pipeline", name, *words])
    if all("=" in word and word[:1].isalpha() and " " not in word for word in words):
        return " ".join(["make", name, *words])
    arguments = " ".join(words)
    quote = "'" if '"' in arguments else '"'
    return f"make {name} ARGS={quote}{arguments}{quote}"
