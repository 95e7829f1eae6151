"""TensorFlow Serving's REST API as a pure function: a request in, a status and a body out.

It asks a backend that speaks protobuf messages. The gateway mounts it under /v1/models over gRPC, the model server
mounts it in its own process; it knows neither Flask nor TensorFlow.
"""

from serving.tfserving_rest.backend import Backend
from serving.tfserving_rest.transcoder import Reply, answer

__all__ = ["Backend", "Reply", "answer"]
