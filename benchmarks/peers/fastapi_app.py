"""FastAPI with the model in its process: two uvicorn workers, no batching."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from model import Model

app = FastAPI()
model = Model()


@app.get("/ready")
def ready() -> dict[str, str]:
    return {}


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    body = await request.body()
    return (await run_in_threadpool(model.predict, [body]))[0]
