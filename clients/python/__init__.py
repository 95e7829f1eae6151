"""The Python client: `from clients.python import Client`."""

from clients.python.client import AsyncClient, Client
from clients.python.results import Failed, Model, Prediction, Version

__all__ = ["AsyncClient", "Client", "Failed", "Model", "Prediction", "Version"]
