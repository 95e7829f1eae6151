"""Run the embedded model server on a simulated device: a fixed time per row, one run at a time.

    python -m benchmarks.paced_model_server MILLISECONDS_PER_ROW [flags of the model server]

Several of these on one machine add up their capacity, where real servers would share its cores.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.cli import run

from serving.model_server.__main__ import model_server
from serving.runtimes.tensorflow_start import start_tensorflow


def pace(seconds_per_row: float) -> None:
    """Let all models of this process share one device of that speed."""
    start_tensorflow(keras=False)
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    computed = TensorFlowRuntime.run
    device = threading.Lock()

    def paced(model: Any, feeds: Mapping[str, Any], fetches: Sequence[str], deadline: float | None = None) -> Any:
        with device:
            until = time.monotonic() + seconds_per_row * len(next(iter(feeds.values())))
            results = computed(model, feeds, fetches, deadline)
            time.sleep(max(0.0, until - time.monotonic()))
            return results

    TensorFlowRuntime.run = paced  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    pace(float(sys.argv.pop(1)) / 1000)
    sys.argv.append("--prefer_tflite_model=false")  # what is paced is TensorFlow's run
    run(model_server, "python -m benchmarks.paced_model_server")
