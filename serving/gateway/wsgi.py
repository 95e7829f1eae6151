"""What gunicorn imports in each worker, after the fork: settings, a channel of its own, the application."""

import os

from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.merging_predictor import MergingPredictor
from serving.backend.predictor import Predictor
from serving.backend.tensor_function import TensorFunction
from serving.faces import served_encoder
from serving.faces.client import FaceClient
from serving.faces.recognition import Faces
from serving.faces.settings import FaceSettings
from serving.gateway import greenlets
from serving.gateway.app import create_app
from serving.gateway.logs import configure
from serving.gateway.metrics import Metrics
from serving.gateway.settings import Settings, read_settings
from serving.gateway.v1_backend import GrpcBackend


def faces_at(face_settings: FaceSettings, settings: Settings) -> Faces | None:
    """The face service and the encoder that the settings name; None where they name no service."""
    if not face_settings.socket:
        return None
    client = FaceClient(face_settings.socket, timeout_seconds=face_settings.timeout_seconds)
    if face_settings.encoder == "dlib":
        return Faces(client, client, client, face_settings.tolerance)
    call = TensorFunction(
        settings.backends,
        served_encoder.MODEL,
        signature=served_encoder.SIGNATURE,
        input=served_encoder.INPUT,
        output=served_encoder.OUTPUT,
        timeout_seconds=settings.backend_timeout_seconds,
    )
    return Faces(client, served_encoder.ServedEncoder(call, client), client, face_settings.tolerance)


def predictor_of(settings: Settings, metrics: Metrics) -> Predictor:
    """What runs the models, as the settings want it."""
    predictor = GrpcPredictor(
        settings.backends, timeout_seconds=settings.backend_timeout_seconds, listed_models=settings.listed_models
    )
    return MergingPredictor(predictor, merged=metrics.rpc) if settings.merge else predictor


greenlets.join_grpc()
settings = read_settings(os.environ).settings
configure(settings.log_format, settings.log_level)
metrics = Metrics()
app = create_app(
    settings,
    predictor_of(settings, metrics),
    faces_at(FaceSettings(), settings),
    metrics,
    GrpcBackend(settings.backends, timeout_seconds=settings.backend_timeout_seconds),
)
