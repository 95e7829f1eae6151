"""Measure pictures per second of a model in a process of its own.

    python -m benchmarks.raw_model FOLDER THREADS BATCH SECONDS [RUNTIME]

FOLDER: models/NAME. RUNTIME: tensorflow, which runs the SavedModel, or litert, which runs model.tflite.
"""

import argparse
import threading
import time
from pathlib import Path

import numpy as np

from serving.contract.golden import read_golden
from serving.contract.machine import usable_cpus
from serving.contract.versions import TFLITE_FILE, version_dirs
from serving.runtimes.runtime import Runtime

TENSORFLOW, LITERT = "tensorflow", "litert"


def runtimes_of(version: Path) -> tuple[str, ...]:
    """List the runtimes that can run a version."""
    return (TENSORFLOW, LITERT) if (version / TFLITE_FILE).exists() else (TENSORFLOW,)


def load(version: Path, runtime: str, *, threads: int, runs: int) -> Runtime:
    """Load a version as the model server does. threads: of one run; runs: side by side."""
    if runtime == LITERT:
        from serving.runtimes.litert import LiteRtRuntime

        return LiteRtRuntime(version, threads=threads, runs=runs)
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    return TensorFlowRuntime(version, intra_op_threads=threads)


def measure(version: Path, threads: int, size: int, seconds: float, runtime: str) -> float:
    """Return pictures per second of `threads` that run batches of `size`."""
    model = load(version, runtime, threads=max(1, usable_cpus() // threads), runs=threads)
    signature = model.signatures["serving_default"]
    (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
    tensors = read_golden(version).tensors
    batch = np.resize(tensors, (size, *tensors.shape[1:]))
    done = [0] * threads
    ends = time.perf_counter() + 1.0

    def work(index: int) -> None:
        while time.perf_counter() < ends:
            model.run({feed.name: batch}, [fetch.name])
            done[index] += size

    for _ in ("warm up", "measure"):
        done[:] = [0] * threads
        started = time.perf_counter()
        workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent = time.perf_counter() - started
        ends = time.perf_counter() + seconds
    return sum(done) / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("runtime", nargs="?", choices=(TENSORFLOW, LITERT), default=TENSORFLOW)
    options = parser.parse_args()
    version = version_dirs(options.folder)[-1]
    print(measure(version, options.threads, options.batch, options.seconds, options.runtime))


if __name__ == "__main__":
    main()
