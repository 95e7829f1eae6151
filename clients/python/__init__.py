"""The Python client: `from clients.python import Client`."""

from typing import TYPE_CHECKING, Any

from clients.python.client import AsyncClient, Client
from clients.python.results import Failed, Model, Prediction, Version

if TYPE_CHECKING:
    from clients.python.grpc_client import GrpcClient

__all__ = ["AsyncClient", "Client", "Failed", "GrpcClient", "Model", "Prediction", "Version"]


def __getattr__(name: str) -> Any:
    """GrpcClient only when it is asked for: gRPC takes a tenth of a second to import."""
    if name == "GrpcClient":
        from clients.python.grpc_client import GrpcClient

        return GrpcClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
