"""The WSGI application, built in each worker after the fork, with a gRPC channel of its own."""

import functools
import os
from pathlib import Path

from serving.backend.backends import Backends, Tls, Watcher
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.merging_predictor import MergingPredictor
from serving.backend.predict_socket import SocketBackends
from serving.backend.predictor import Predictor
from serving.backend.tensor_function import TensorFunction
from serving.contract.logs import configure
from serving.faces import served_encoder
from serving.faces.recognition import Faces
from serving.faces.service.client import FaceClient
from serving.faces.settings import FaceSettings
from serving.gateway.app import create_app
from serving.gateway.http.v1_backend import GrpcBackend
from serving.gateway.settings import Settings, read_settings
from serving.gateway.telemetry.metrics import Metrics
from serving.gateway.telemetry.tracing import tracing_of
from serving.gateway.workers import greenlets
from serving.gateway.workers.shared import SHARED


def backends_of(settings: Settings, metrics: Metrics) -> Backends:
    """Make the client of the model servers."""
    tls = None
    if settings.backend_tls:
        ca, certificate, key = (
            Path(path) if path else None
            for path in (settings.backend_tls_ca, settings.backend_tls_certificate, settings.backend_tls_key)
        )
        tls = Tls(ca, certificate, key, settings.backend_tls_server_name)
    watcher = Watcher(metrics.backend, metrics.retried)
    keepalive = settings.backend_keepalive_seconds
    if settings.backend_socket:
        return SocketBackends(
            settings.backends, settings.backend_socket, tls=tls, watcher=watcher, keepalive_seconds=keepalive
        )
    return Backends(settings.backends, tls=tls, watcher=watcher, keepalive_seconds=keepalive)


def faces_at(face_settings: FaceSettings, settings: Settings, backends: Backends) -> Faces | None:
    """Make the client of the face service and its encoder; None where no service is configured."""
    if not face_settings.socket:
        return None
    client = FaceClient(face_settings.socket, timeout_seconds=face_settings.timeout_seconds)
    if face_settings.encoder == "dlib":
        return Faces.from_settings(face_settings, client, client, client)
    call = TensorFunction(
        backends,
        served_encoder.MODEL,
        signature=served_encoder.SIGNATURE,
        input=served_encoder.INPUT,
        output=served_encoder.OUTPUT,
        timeout_seconds=settings.backend_timeout_seconds,
    )
    return Faces.from_settings(face_settings, client, served_encoder.ServedEncoder(call, client), client)


def predictor_of(settings: Settings, metrics: Metrics, backends: Backends) -> Predictor:
    """Make the predictor, with merging unless it is turned off."""
    predictor = GrpcPredictor(
        backends, timeout_seconds=settings.backend_timeout_seconds, listed_models=settings.listed_models
    )
    return (
        MergingPredictor(predictor, max_pictures=settings.merge_pictures, merged=metrics.rpc)
        if settings.merge
        else predictor
    )


greenlets.join_grpc()
given = read_settings(os.environ)
settings = given.settings
configure(settings.log_format, settings.log_level)
metrics = Metrics()
backends = backends_of(settings, metrics)
app = create_app(
    settings,
    predictor_of(settings, metrics, backends),
    faces_at(given.faces, settings, backends),
    metrics,
    functools.partial(GrpcBackend, backends),
    tracing=tracing_of(os.environ),
    shared=SHARED,
)
