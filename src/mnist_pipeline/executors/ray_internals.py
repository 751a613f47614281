"""Parts of Ray that are not public, each behind one name. `tests/test_library_internals.py` checks them."""

from ray._private import worker


def keep_quiet() -> None:
    """Keep Ray from printing to stdout what it hears of its nodes: who comes and goes is logged by `Cluster`."""
    worker.print_to_stdstream = lambda data, ignore_prefix=False: None
