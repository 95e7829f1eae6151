"""The status of a call that failed: a gRPC code and a message, whoever raised it and however it travelled.

The model server raises a CallError, in TensorFlow Serving's own words, which clients and readiness probes look for;
`grpc_services`, the Predict socket and the REST transcoder send it. `backend.backends` and `backend.predict_socket`
raise it again on the other side, and `backend.grpc_predictor` turns it into one of Sightline's errors.
"""

import logging
from typing import Any

import grpc

logger = logging.getLogger(__name__)

STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}  # as they travel
MAX_MESSAGE_CHARS = 1024  # tensorflow_serving/model_servers/grpc_status_util.cc
CUT_MARK = "...TRUNCATED"


class CallError(Exception):
    """A call or a load that failed. code: gRPC's; message: what the client reads."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The code as an integer, the same in gRPC, google.rpc.Code and TensorFlow."""
        number: int = self.code.value[0]
        return number

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> CallError:
    """Make the error of a request that is wrong whatever the server's state."""
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> CallError:
    """Make the error of a request that does not fit the loaded version."""
    return CallError(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> CallError:
    """Make the error of a model or version that is not there, or not yet."""
    return CallError(grpc.StatusCode.NOT_FOUND, message)


def data_loss(message: str) -> CallError:
    """Make the error of a version that is damaged, or not the one that was exported."""
    return CallError(grpc.StatusCode.DATA_LOSS, message)


def deadline_exceeded() -> CallError:
    """Make the error of a call whose time has run out."""
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def unexpected() -> CallError:
    """Log the exception that is being handled, a fault of ours, and make the error that the client reads."""
    logger.exception("a call failed that should not have")
    return CallError(grpc.StatusCode.INTERNAL, "internal error of the model server; its log has the details")


def from_grpc(error: grpc.RpcError) -> CallError:
    """Turn gRPC's error of a call into ours."""
    return CallError(error.code(), error.details() or "")


def from_number(number: int, message: str) -> CallError:
    """Make the error of a code that came as a number; UNKNOWN where gRPC has no such code."""
    return CallError(STATUS_CODES.get(number, grpc.StatusCode.UNKNOWN), message)


def from_tensorflow(error: Any) -> CallError:
    """Turn a tf.errors.OpError into ours: TensorFlow numbers its codes as gRPC does."""
    return from_number(error.error_code, error.message)


def cut(message: str) -> str:
    """Cut a message as TensorFlow Serving does: at most 1,024 characters, then a mark."""
    return message if len(message) <= MAX_MESSAGE_CHARS else message[:MAX_MESSAGE_CHARS] + CUT_MARK
