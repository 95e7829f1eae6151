"""A SavedModel in memory: a v1 Session, as the stock tensorflow_model_server runs it.

A v1 Session gives the server's own error texts, takes any shape that the operations take, and gives its memory back
when it is closed; `tf.saved_model.load(...).signatures` does none of these.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session

from serving.model_server.status import CallError, from_tensorflow, invalid_argument, not_found
from serving.model_server.tensors import Array

SERVE_TAGS = ("serve",)
INLINE_SECONDS = 0.002  # a model that runs for less gains more from staying on the calling thread (measured: 40 us)


class SavedModel:
    """One version, loaded and ready to run. Safe to share between threads.

    Raises CallError when the directory does not hold a SavedModel that can be loaded.
    """

    def __init__(self, directory: Path, tags: Sequence[str] = SERVE_TAGS) -> None:
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=_session_config())
        try:
            meta_graph = _load(self._session, self._graph, directory, tags)
        except BaseException:
            self.close()
            raise
        self.signatures: Mapping[str, Any] = dict(meta_graph.signature_def)
        self._handles: dict[str, Any] = {}
        self._usual_seconds = INLINE_SECONDS

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
        self._usual_seconds += 0.1 * (time.monotonic() - started - self._usual_seconds)
        return results

    def close(self) -> None:
        """Give the memory back. No call may be running."""
        self._session.close()

    def _handle(self, name: str) -> Any:
        """The tensor of that name as the C API knows it."""
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

    def _options(self, deadline: float | None) -> Any:
        """A timeout needs the Session's own threads; a short run without one stays on the calling thread."""
        if deadline is None:
            return INLINE if self._usual_seconds < INLINE_SECONDS else None
        left = deadline - time.monotonic()
        if left <= 0:
            raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return _buffer(config_pb2.RunOptions(timeout_in_ms=max(1, int(left * 1000))))


def _session_config() -> Any:
    gpu = config_pb2.GPUOptions(allow_growth=True)
    return config_pb2.ConfigProto(allow_soft_placement=True, gpu_options=gpu)


def _buffer(options: Any) -> Any:
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


INLINE = _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1))


def _load(session: Any, graph: Any, directory: Path, tags: Sequence[str]) -> Any:
    """Read and restore a SavedModel. A model is foreign code: whatever it raises is a load that failed."""
    if not any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise not_found(f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}")
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, list(tags), str(directory))
        session._extend_graph()  # `run` calls the C API, which knows only what has been handed to it
        return meta_graph
    except tf.errors.OpError as exc:
        raise from_tensorflow(exc) from exc
    except OSError as exc:
        raise CallError(grpc.StatusCode.DATA_LOSS, str(exc)) from exc
    except RuntimeError as exc:
        raise not_found(str(exc)) from exc
    except Exception as exc:
        raise CallError(grpc.StatusCode.UNKNOWN, f"{type(exc).__name__}: {exc}") from exc
