"""The Python client: `from sightline import Client`."""

from typing import TYPE_CHECKING, Any

from sightline.client import AsyncClient, Client
from sightline.results import Failed, Model, Prediction, Version

if TYPE_CHECKING:
    from sightline.grpc import GrpcClient

__all__ = ["AsyncClient", "Client", "Failed", "GrpcClient", "Model", "Prediction", "Version"]


def __getattr__(name: str) -> Any:
    """GrpcClient only when it is asked for: gRPC takes a tenth of a second to import."""
    if name == "GrpcClient":
        from sightline.grpc import GrpcClient

        return GrpcClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
