"""A Flask app that reads a request and returns a constant: the limit of any gateway on Flask and gunicorn."""

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
