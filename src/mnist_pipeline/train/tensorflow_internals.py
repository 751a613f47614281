"""A part of TensorFlow that is not public. `tests/test_library_internals.py` checks it."""

import contextlib

from tensorflow.python.eager.context import function_executor_type


def single_threaded_executor() -> contextlib.AbstractContextManager[None]:
    """Run the graphs that are called in a `with` block operation by operation, in the thread that calls them."""
    executor: contextlib.AbstractContextManager[None] = function_executor_type("SINGLE_THREADED_EXECUTOR")
    return executor
