"""Flask with the model in its process: two gunicorn workers of threads, no batching."""

from flask import Flask, request
from model import Model

app = Flask("peer", static_folder=None)
model = Model()


@app.get("/ready")
def ready() -> dict[str, str]:
    return {}


@app.post("/predict")
def predict() -> dict[str, object]:
    return model.predict([request.get_data()])[0]
