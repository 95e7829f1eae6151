"""What gunicorn imports in each worker, after the fork: settings, a channel of its own, the application."""

import logging

from serving.backend.grpc_predictor import GrpcPredictor
from serving.gateway.app import create_app
from serving.gateway.settings import Settings

settings = Settings()
logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
app = create_app(
    settings,
    GrpcPredictor(
        settings.backends,
        timeout_seconds=settings.backend_timeout_seconds,
        listed_models=settings.listed_models,
    ),
)
