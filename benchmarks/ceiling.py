"""The least that Flask under gunicorn can do, read a request and answer a constant: the gateway's limit."""

from typing import Any

from flask import Flask, request

ANSWER = {
    "model": "fashion",
    "version": 1,
    "predictions": [{"name": "", "label": "Sneaker", "score": 0.98, "top": [{"label": "Sneaker", "score": 0.98}] * 5}],
}
app = Flask("ceiling", static_folder=None)


@app.get("/healthz")
def healthz() -> dict[str, Any]:
    return {}


@app.post("/predict/<model>")
def predict(model: str) -> dict[str, Any]:  # noqa: ARG001
    request.get_data()
    return ANSWER
