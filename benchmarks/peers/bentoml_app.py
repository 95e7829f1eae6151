"""BentoML with its adaptive batching: an ASGI front, and a service that runs the model on batches."""

import bentoml
from fastapi import FastAPI, Request
from model import Model

front = FastAPI()


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Runner:
    def __init__(self) -> None:
        self.model = Model(threads=2)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, pictures: list[bytes]) -> list[dict[str, object]]:
        return self.model.predict(pictures)


@bentoml.service(workers=2, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(front)
class Front:
    runner = bentoml.depends(Runner)

    @front.get("/ready")
    def ready(self) -> dict[str, str]:
        return {}

    @front.post("/predict")
    async def predict(self, request: Request) -> dict[str, object]:
        return (await self.runner.to_async.predict([await request.body()]))[0]
