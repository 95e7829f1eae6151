"""Hold a server against its own specification, with schemathesis and hypothesis."""

import io
from typing import Any

import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.backend.predictor import Call
from serving.gateway.settings import Settings
from serving.tfserving_rest import Backend

EXAMPLES = 12  # for each operation


bounded = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


BEYOND_A_SCHEMA = [positive_data_acceptance]  # no schema tells a picture from other bytes


LIMITS = Settings(max_image_bytes=20_000, max_image_pixels=10_000, max_images=4, max_request_bytes=50_000)


def never_asked(call: Call) -> Backend:
    raise NotImplementedError(call)


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The specification, and an answer that holds more than it says is one it does not allow."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return document


def held_to(app: Flask) -> Any:
    """The application's own specification, ready to be held against it."""
    schema = schemathesis.openapi.from_dict(closed(app.test_client().get("/openapi.json").get_json()))
    schema.app = app
    return schema


def red(side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


INPUT = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [200, 0, 0] * 4}
