"""What a call may end with: a gRPC code and TensorFlow Serving's own words.

The texts are part of the protocol: clients and readiness probes look for them. Everything that the model server
refuses is a `CallError`; `servicer.py` turns it into a gRPC status and `http.py` into an HTTP one.
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
        super().__init__(message)
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
    """The request is wrong, whatever the server's state."""
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> CallError:
    """The request does not fit what is loaded."""
    return CallError(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> CallError:
    """There is no such thing, or not yet."""
    return CallError(grpc.StatusCode.NOT_FOUND, message)


def deadline_exceeded() -> CallError:
    """The time that the client allowed has run out."""
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def unexpected() -> CallError:
    """What a client is told of an exception that is being handled and should not have been: the log has it whole."""
    logger.exception("a call failed that should not have")
    return CallError(grpc.StatusCode.INTERNAL, "internal error of the model server; its log has the details")


def from_tensorflow(error: Any) -> CallError:
    """A tf.errors.OpError as ours: TensorFlow numbers its codes as gRPC does."""
    return CallError(STATUS_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)


def cut(message: str) -> str:
    """A message as TensorFlow Serving sends it: at most 1,024 characters, then a mark."""
    return message if len(message) <= MAX_MESSAGE_CHARS else message[:MAX_MESSAGE_CHARS] + CUT_MARK
