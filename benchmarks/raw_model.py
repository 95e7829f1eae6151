"""Pictures a second of a model in a process that does nothing else: FOLDER THREADS BATCH SECONDS [RUNTIME].

RUNTIME: tensorflow, which runs the SavedModel, or litert, which runs model.tflite.
"""

import sys
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
    """What can run a version."""
    return (TENSORFLOW, LITERT) if (version / TFLITE_FILE).exists() else (TENSORFLOW,)


def load(version: Path, runtime: str, *, threads: int, runs: int) -> Runtime:
    """A version as the model server loads it. threads: of one run; runs: side by side."""
    if runtime == LITERT:
        from serving.runtimes.litert import LiteRtRuntime

        return LiteRtRuntime(version, threads=threads, runs=runs)
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    return TensorFlowRuntime(version, intra_op_threads=threads)


def main(folder: str, threads: str, size: str, seconds: str, runtime: str = TENSORFLOW) -> None:
    version, runs = version_dirs(Path(folder))[-1], int(threads)
    model = load(version, runtime, threads=max(1, usable_cpus() // runs), runs=runs)
    signature = model.signatures["serving_default"]
    (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
    tensors = read_golden(version).tensors
    batch = np.resize(tensors, (int(size), *tensors.shape[1:]))
    done = [0] * int(threads)
    ends = time.perf_counter() + 1.0

    def work(index: int) -> None:
        while time.perf_counter() < ends:
            model.run({feed.name: batch}, [fetch.name])
            done[index] += int(size)

    for _ in ("warm up", "measure"):
        done[:] = [0] * int(threads)
        started = time.perf_counter()
        workers = [threading.Thread(target=work, args=(index,)) for index in range(int(threads))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent = time.perf_counter() - started
        ends = time.perf_counter() + float(seconds)
    print(sum(done) / spent)


if __name__ == "__main__":
    main(*sys.argv[1:])
