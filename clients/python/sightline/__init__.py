"""The Python client of Sightline: `from sightline import Client`. It needs httpx, and nothing else to send files.

`from sightline.grpc import GrpcClient` calls a model server without a gateway, and needs the gateway's packages.
"""

from sightline.client import AsyncClient, Client
from sightline.errors import (
    AccessDenied,
    BadImage,
    BadRequest,
    DeadlineExceeded,
    MissingPackage,
    NotFound,
    ServerError,
    ServiceUnreachable,
    SightlineError,
    Unavailable,
    UnexpectedAnswer,
    UsageError,
)
from sightline.results import Failed, Label, Model, Prediction, Version

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "BadImage",
    "BadRequest",
    "Client",
    "DeadlineExceeded",
    "Failed",
    "Label",
    "MissingPackage",
    "Model",
    "NotFound",
    "Prediction",
    "ServerError",
    "ServiceUnreachable",
    "SightlineError",
    "Unavailable",
    "UnexpectedAnswer",
    "UsageError",
    "Version",
]
