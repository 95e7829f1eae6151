"""TensorFlow, started once and without its speeches.

Its native code writes notes about the processor and about CUDA drivers that it does not find to file descriptor 2 at
import and when it first looks for devices; no setting of TensorFlow 2.21 stops them.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def start_tensorflow() -> Any:
    """Import TensorFlow, look for its devices and let GPUs' memory grow with need. Returns the module."""
    with native_stderr_silenced():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.list_logical_devices()
    return tf


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Nothing that is written to file descriptor 2 is seen; exceptions are raised as ever."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
