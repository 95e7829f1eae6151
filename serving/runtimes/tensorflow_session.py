"""A SavedModel in memory: a v1 Session, as the stock tensorflow_model_server runs it.

A v1 Session gives the server's own error texts, takes any shape that the operations take, and gives its memory back
when it is closed; `tf.saved_model.load(...).signatures` does none of these.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session

from serving.contract.versions import SAVED_MODEL_FILE, SERVE_TAG
from serving.runtimes.status import (
    CallError,
    deadline_exceeded,
    failed_precondition,
    from_tensorflow,
    invalid_argument,
    not_found,
)
from serving.runtimes.tensors import Array

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
INLINE_SECONDS = 0.005  # a model that runs for less gains more from staying on the calling thread (measured: 140 us)
TRUSTED_RUNS = 10  # after so many runs a model's time is known
TIMEOUT_FACTOR = 20  # a deadline beyond so many of the slowest runs needs no timeout, which costs 100 us
FADING = 0.999  # how much of the slowest run is remembered from one run to the next


class TensorFlowRuntime:
    """One version, loaded and ready to run. Safe to share between threads.

    intra_op_threads: threads of one operation, 0 as many as there are CPUs; TensorFlow has one pool for a process, so
    the first model's number holds for all. Raises CallError when the directory holds no SavedModel that can be loaded.
    """

    def __init__(self, directory: Path, tags: Sequence[str] = (SERVE_TAG,), intra_op_threads: int = 0) -> None:
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=_session_config(intra_op_threads))
        try:
            meta_graph = _load(self._session, self._graph, directory, tags)
        except BaseException:
            self.close()
            raise
        self.signatures: Mapping[str, Any] = dict(meta_graph.signature_def)
        self._handles: dict[str, Any] = {}
        self._runs = 0
        self._slowest_seconds = self._usual_seconds = 0.0

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        """Run the graph. feeds: by tensor name. deadline: of time.monotonic. Returns an array for each fetch.

        Raises CallError with TensorFlow's code and message.
        """
        feed = {self._handle(name): array for name, array in feeds.items()}
        fetch = [self._handle(name) for name in fetches]
        options = self._options(deadline)
        started = time.monotonic()
        try:
            results: list[Array] = self._session._call_tf_sessionrun(options, feed, fetch, [], None)
        except tf.errors.OpError as exc:
            raise from_tensorflow(exc) from exc
        finally:
            if options is not None and options is not INLINE:
                pywrap_tf_session.TF_DeleteBuffer(options)
        self._remember(time.monotonic() - started)
        return [_string_array(result) if isinstance(result, bytes) else result for result in results]

    def close(self) -> None:
        """Free the memory. No call may be running."""
        self._session.close()

    def _handle(self, name: str) -> Any:
        """Look up a tensor by name, as the C API knows it."""
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = self._graph.get_tensor_by_name(name)._as_tf_output()
            except (KeyError, ValueError) as exc:
                raise invalid_argument(
                    f"Tensor {name}, specified in the signature, was not found in the Graph"
                ) from exc
            self._handles[name] = handle
        return handle

    def _remember(self, seconds: float) -> None:
        """Note how long a run took. Threads may overwrite each other's notes: they are estimates."""
        self._runs += 1
        self._slowest_seconds = max(seconds, FADING * self._slowest_seconds)
        self._usual_seconds += 0.1 * (seconds - self._usual_seconds)

    def _options(self, deadline: float | None) -> Any:
        """Choose RunOptions: a timeout needs the Session's threads; a short run without one stays on this thread."""
        is_known = self._runs >= TRUSTED_RUNS
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise deadline_exceeded()
            if not is_known or left < TIMEOUT_FACTOR * self._slowest_seconds:
                return _buffer(config_pb2.RunOptions(timeout_in_ms=max(1, int(left * 1000))))
        return INLINE if is_known and self._usual_seconds < INLINE_SECONDS else None


def _string_array(value: bytes) -> Array:
    """Make the array of a scalar string, which TensorFlow returns as bytes; numpy's own would drop its last zeros."""
    return np.array(value, dtype=object)


def _session_config(intra_op_threads: int) -> Any:
    gpu = config_pb2.GPUOptions(allow_growth=True)
    return config_pb2.ConfigProto(
        allow_soft_placement=True, gpu_options=gpu, intra_op_parallelism_threads=intra_op_threads
    )


def _buffer(options: Any) -> Any:
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


INLINE = _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1))


def _load(session: Any, graph: Any, directory: Path, tags: Sequence[str]) -> Any:
    """Read and restore a SavedModel. A model is foreign code: whatever it raises is a load that failed."""
    if not any((directory / name).is_file() for name in (SAVED_MODEL_FILE, f"{SAVED_MODEL_FILE}txt")):
        raise not_found(f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}")
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, list(tags), str(directory))
            _require_restored(session, graph, meta_graph.signature_def.values())
        session._extend_graph()  # `run` calls the C API, which has to be given the graph first
        return meta_graph
    except tf.errors.OpError as exc:
        raise from_tensorflow(exc) from exc
    except CallError:
        raise
    except OSError as exc:
        raise CallError(grpc.StatusCode.DATA_LOSS, str(exc)) from exc
    except RuntimeError as exc:
        raise not_found(str(exc)) from exc
    except Exception as exc:
        raise CallError(grpc.StatusCode.UNKNOWN, f"{type(exc).__name__}: {exc}") from exc


def _require_restored(session: Any, graph: Any, signatures: Iterable[Any]) -> None:
    """Refuse a model whose functions read variables that the checkpoint did not fill: it would fail every request.

    `tf.saved_model.save` of a Keras 3 model writes such a model: it restores copies of the variables.
    """
    names = {info.name for signature in signatures for info in signature.outputs.values() if ":" in info.name}
    calls = [graph.get_tensor_by_name(name).op for name in names]
    read = [tensor for call in calls if call.type in CALLS for tensor in call.inputs if tensor.op.type == "VarHandleOp"]
    named = list({tensor.name: tensor for tensor in read}.values())
    filled = session.run([tf.raw_ops.VarIsInitializedOp(resource=tensor) for tensor in named])
    empty = [tensor.op.name for tensor, is_filled in zip(named, filled, strict=True) if not is_filled]
    if empty:
        raise failed_precondition(
            f"{len(empty)} variables that the signatures read were not restored, {empty[0]} among them; "
            "save Keras models with model.export(path)"
        )
