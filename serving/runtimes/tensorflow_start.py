"""Import TensorFlow once, late and without its native chatter.

TensorFlow's native code writes notes about the processor and about missing CUDA drivers to file descriptor 2 at import,
and when it first looks for devices; no setting of TensorFlow 2.21 stops all of them.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STARTING = threading.Lock()  # versions are loaded side by side
_HOLDING = threading.RLock()  # and a process has one stderr


def start_tensorflow(*, keras: bool = True) -> Any:
    """Import TensorFlow; with Keras, let GPU memory grow with need. Returns the module `tensorflow`.

    keras: False leaves Keras out of this process for good; a server does not use it (2.8 s and 612 MB become 1.9 s and
    531 MB). Without effect once TensorFlow is imported.
    """
    with _STARTING:
        if "tensorflow" not in sys.modules:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            modules: dict[str, Any] = sys.modules
            if not keras:
                modules.setdefault("keras", None)  # TensorFlow does without Keras where it cannot be imported
            with native_stderr_held_back():
                import tensorflow as tf

                tf.get_logger().setLevel("ERROR")
                if keras:  # the first listing of devices writes notes; a server's sessions configure their own
                    for gpu in tf.config.list_physical_devices("GPU"):
                        tf.config.experimental.set_memory_growth(gpu, True)
                    tf.config.list_logical_devices()
    return sys.modules["tensorflow"]


@contextmanager
def native_stderr_held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; show it if the block raises."""
    sys.stderr.flush()
    with _HOLDING, tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
