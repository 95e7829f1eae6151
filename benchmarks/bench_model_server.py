"""Compare the model server with its limit, the SavedModel run in-process: ratios within one run.

    python -m benchmarks.bench_model_server [--seconds 5] [--rounds 3]

Measures for each model, in turn and repeatedly: the raw SavedModel (`raw`: two threads, or one run of the merged batch,
whichever is faster), the server without batching, with our batcher, and with TensorFlow's own C++ batcher
(`tf.nondifferentiable_batch_function` inside the served graph). Clients are threads of a process of their own and speak
gRPC. The last lines give the cost of one lone request beyond the model itself, and that of a call to an echo server: no
Python server can do less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.model_server.server_process import ROOT, ModelServer, running

# model: picture's shape, rows of a request, concurrent requests
CASES = {
    "mobilenet": ((224, 224, 3), 1, 8),
    "fashion": ((28, 28, 1), 32, 4),
    "small": ((28, 28, 1), 1, 32),
}
BATCHING = {"our batcher": ["--enable_batching"], "unbatched": []}


def write_models(root: Path) -> None:
    """Export the models, and each once more with TensorFlow's batcher inside. Runs in a process of its own."""
    import keras
    import tensorflow as tf

    def wrapped(model: Any, shape: tuple[int, ...], *, batch: bool) -> tuple[Any, Any]:
        def classify(image: Any) -> Any:
            return model(tf.cast(image, tf.float32) / 255.0, training=False)

        run = classify
        if batch:
            run = tf.nondifferentiable_batch_function(
                num_batch_threads=2, max_batch_size=128, batch_timeout_micros=0, max_enqueued_batches=100
            )(classify)
        module = tf.Module()
        module.weights = [variable.value for variable in model.variables]  # Keras's own objects restore elsewhere
        spec = tf.TensorSpec([None, *shape], tf.uint8, name="image")
        module.serve = tf.function(lambda image: {"probabilities": run(image)}, input_signature=[spec])
        return module, module.serve

    layers = keras.layers
    cnn = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")),
        ]
    )
    mobilenet = keras.applications.MobileNetV2(weights=None)
    for name, model in (("mobilenet", mobilenet), ("fashion", cnn), ("small", cnn)):
        for suffix, batch in (("", False), ("_cpp", True)):
            module, serve = wrapped(model, CASES[name][0], batch=batch)
            tf.saved_model.save(module, str(root / f"{name}{suffix}" / "1"), signatures={"serving_default": serve})


def throughput(call: Callable[[], int], threads: int, seconds: float) -> float:
    """Return pictures per second of `threads` that call repeatedly. call: returns how many pictures it processed."""
    done = [0] * threads
    stop = threading.Event()

    def work(index: int) -> None:
        while not stop.is_set():
            done[index] += call()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - started)


def raw_limit(root: Path, name: str, seconds: float) -> float:
    """Return the most pictures per second that the SavedModel reaches in a process of its own."""
    _, rows, clients = CASES[name]
    best = 0.0
    for threads, size in ((2, rows), (1, rows * clients), (2, rows * clients)):
        best = max(best, float(_side_process("raw", root, name, seconds, threads, size)))
    return best


def served(server: ModelServer, name: str, model: str, seconds: float) -> float:
    """Return pictures per second over gRPC, from a client process of its own."""
    return float(_side_process("client", server.port, name, seconds, model))


def _side_process(*arguments: Any) -> str:
    command = [sys.executable, "-m", "benchmarks.bench_model_server", "--part", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def part_raw(root: str, name: str, seconds: str, threads: str, size: str) -> None:
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    model = TensorFlowRuntime(Path(root) / name / "1", intra_op_threads=max(1, (os.cpu_count() or 1) // int(threads)))
    signature = model.signatures["serving_default"]
    feed, fetch = signature.inputs["image"].name, signature.outputs["probabilities"].name
    batch = np.zeros((int(size), *CASES[name][0]), np.uint8)

    def call() -> int:
        model.run({feed: batch}, [fetch])
        return int(size)

    call()
    throughput(call, int(threads), 0.5)
    print(throughput(call, int(threads), float(seconds)))


def part_client(port: str, name: str, seconds: str, model: str) -> None:
    shape, rows, clients = CASES[name]
    with _predicting(port, model, (rows, *shape)) as call:
        throughput(call, clients, 1.0)
        print(throughput(call, clients, float(seconds)))


def part_latency(port: str, root: str, name: str) -> None:
    """Print median milliseconds of one picture, in turn: over gRPC, of the model in this process, of an echo call."""
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    model = TensorFlowRuntime(
        Path(root) / name / "1", intra_op_threads=max(1, (os.cpu_count() or 1) // 2)
    )  # the server's
    signature = model.signatures["serving_default"]
    feed, fetch = signature.inputs["image"].name, signature.outputs["probabilities"].name
    batch = np.zeros((1, *CASES[name][0]), np.uint8)
    times: dict[str, list[float]] = {"grpc": [], "model": [], "echo": []}
    with _predicting(port, name, batch.shape) as call, _echoing(batch.tobytes()) as echo:
        for _ in range(300):
            for kind, run in (("grpc", call), ("model", lambda: model.run({feed: batch}, [fetch])), ("echo", echo)):
                started = time.perf_counter()
                run()
                times[kind].append((time.perf_counter() - started) * 1000)
    print(json.dumps({kind: statistics.median(values[50:]) for kind, values in times.items()}))


def part_echo() -> None:
    """Run a server that returns what it is sent. Prints its port."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(8))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


@contextmanager
def _echoing(message: bytes) -> Iterator[Callable[[], bytes]]:
    """Yield a call to an echo server in a process of its own."""
    import grpc

    command = [sys.executable, "-m", "benchmarks.bench_model_server", "--part", "echo"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
                rpc = channel.unary_unary("/echo/Echo")
                yield lambda: rpc(message, timeout=60)
        finally:
            process.kill()


@contextmanager
def _predicting(port: str, model: str, shape: tuple[int, ...]) -> Iterator[Callable[[], int]]:
    """Yield a call that sends one Predict as the gateway does: serialised beforehand, no TensorFlow."""
    import grpc

    from serving.backend.protos import wire_pb2 as wire
    from serving.runtimes.tensors import to_content_proto

    request = wire.PredictRequest(model_spec=wire.ModelSpec(name=model))
    to_content_proto(np.zeros(shape, np.uint8), request.inputs["image"])
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        rpc = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            wire.PredictRequest.SerializeToString,
            wire.PredictResponse.FromString,
        )

        def call() -> int:
            rpc(request, timeout=60)
            return shape[0]

        call()
        yield call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(CASES))
    parser.add_argument("--part", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        globals()[f"part_{options.part[0]}"](*options.part[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options)


def compare(root: Path, options: argparse.Namespace) -> None:
    """Print a line per model and way of batching: the median pictures per second, and its share of the limit."""
    models = root / "models"
    _side_process("write", models)
    for name in options.models:
        found: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            found.setdefault("raw", []).append(raw_limit(models, name, options.seconds))
            for way, flags in BATCHING.items():
                with running(root, "--models", models, *flags) as server:
                    server.wait_for(name, 1)
                    found.setdefault(way, []).append(served(server, name, name, options.seconds))
                    if not flags:
                        server.wait_for(f"{name}_cpp", 1)
                        cpp = served(server, name, f"{name}_cpp", options.seconds)
                        found.setdefault("TensorFlow's batcher", []).append(cpp)
        limit = statistics.median(found["raw"])
        for way, rates in found.items():
            share = statistics.median(rates) / limit
            print(f"{name:10} {way:22} {statistics.median(rates):10.1f} pictures/s {share:6.2f} of raw", flush=True)
    for name in options.models:
        with running(root, "--models", models, "--enable_batching") as server:
            server.wait_for(name, 1)
            median = json.loads(_side_process("latency", server.port, models, name))
        extra = median["grpc"] - median["model"]
        print(
            f"{name:10} one picture: {median['grpc']:.2f} ms, model alone {median['model']:.2f}, extra {extra:.2f} ms, "
            f"an echo {median['echo']:.2f}"
        )


def part_write(root: str) -> None:
    write_models(Path(root))
    print("written")


if __name__ == "__main__":
    main()
