"""How TensorFlow is started, and how a lack of memory is reported."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from mnist_pipeline.system.errors import UserError

OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
"""The errors of too little memory."""


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Report a lack of memory in one line.

    Raises:
        UserError: There is too little memory.
    """
    try:
        yield
    except OUT_OF_MEMORY as error:
        raise UserError(
            f"{describe_shortage(error)}; free some and run the same command again, which resumes"
        ) from error


def describe_shortage(error: Exception) -> str:
    """Return a short description of a lack of memory."""
    return f"not enough memory ({' '.join(str(error).split())[:200]})"


def hide_gpus() -> None:
    """Keep TensorFlow on the CPU: the steps are too small for a GPU, and a CPU gives the same bits every time.

    Raises:
        RuntimeError: TensorFlow already uses a GPU in this process.
    """
    tf.config.set_visible_devices([], "GPU")


def reset_keras() -> None:
    """Give Keras its own defaults, whatever the user's keras.json says: models and their bits depend on them."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


def start_tensorflow(num_threads: int) -> None:
    """Give TensorFlow its number of threads before it starts, and keep its results the same with any of them.

    Raises:
        UserError: TensorFlow has already started in this process with another number.
    """
    reset_keras()
    try:
        hide_gpus()
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)
        if num_threads > 1:  # one thread is deterministic by itself, and a tenth faster without the guarantee
            tf.config.experimental.enable_op_determinism()
    except RuntimeError as error:
        raise UserError(
            f"train.num_threads={num_threads}: TensorFlow already runs with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()} in this process; use a "
            "separate command for each number"
        ) from error
