"""GET /models and GET /models/{model}: the served models."""

from flask import Blueprint

from serving.backend.predictor import ModelRef, Predictor
from serving.contract.errors import DeadlineExceeded, ModelError, NotAClassifier, Unavailable, UnknownModel
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.responses import description_body, model_body
from serving.gateway.http.schemas import BackendAddresses, Description, Models
from serving.gateway.settings import Settings

ASKED = (Unavailable, DeadlineExceeded)
LIST = Operation("models", Models, scope="predict", errors=ASKED)
BACKEND = Operation("models", BackendAddresses, scope="admin")
DESCRIBE = Operation("models", Description, scope="predict", errors=(*ASKED, UnknownModel, ModelError))


def blueprint(predictor: Predictor, settings: Settings) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("models", __name__)

    @routes.get("/models")
    @described(LIST)
    def models() -> Models:
        """List every model with its versions and their states."""
        return {"models": [model_body(name, states) for name, states in predictor.models().items()]}

    @routes.get("/backend")
    @described(BACKEND)
    def backend() -> BackendAddresses:
        """List the gRPC addresses of the model servers, for `sightline doctor`."""
        return {"addresses": list(settings.backends)}

    @routes.get("/models/<name>")
    @described(DESCRIBE)
    def model(name: str) -> Description:
        """Describe a model by the card of the version that answers; null where no version answers or it has no card."""
        body = model_body(name, predictor.versions(name))
        if not body["ready"]:
            return description_body(body, None)
        try:
            served = predictor.describe(ModelRef(name))
        except NotAClassifier:  # such as the face encoder
            return description_body(body, None)
        return description_body(body, served)

    return routes
