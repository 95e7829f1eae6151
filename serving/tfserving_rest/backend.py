"""The protocol of whatever answers the transcoder's calls."""

from typing import Protocol

from serving.backend.methods import Method, Request, Response


class Backend(Protocol):
    """PredictionService and ModelService. Deadlines are the backend's own."""

    def call(self, method: Method[Request, Response], request: Request) -> Response:
        """Call a method: Predict, Classify, Regress, GetModelMetadata or GetModelStatus. Raises CallError."""
