"""LitServe with its batching: two API servers, one worker that runs the model. Takes forms."""

import os

import litserve as ls
from fastapi import Request
from model import Model


class Api(ls.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = Model(threads=2)

    def decode_request(self, request: Request) -> bytes:
        return request["image"].file.read()

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, x: list[bytes]) -> list[dict[str, object]]:
        return self.model.predict(x)

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.0005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/ready")
    server.run(port=int(os.environ["PORT"]), num_api_servers=2, generate_client_file=False, log_level="warning")
