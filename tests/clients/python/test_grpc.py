"""`GrpcClient` against a real gRPC server, and beside `Client` and a gateway in front of the same server."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from sightline import BadRequest, Client, Failed, Prediction, Unavailable
from sightline.grpc import GrpcClient

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.methods import PREDICT
from serving.contract.card import Calibration
from tests.backend.color_server import ColorServer, handler, serving
from tests.cards import COLORS
from tests.clients.shades import Serve, png


@dataclass
class Running:
    """A model server on a port. colors: what it answers."""

    colors: ColorServer
    target: str


@pytest.fixture
def model_server() -> Iterator[Running]:
    colors = ColorServer(versions={1: replace(COLORS, calibration=Calibration(2.0))})
    with serving(colors) as target:
        yield Running(colors, target)


class Pausing(GrpcClient):
    """Notes its pauses in place of making them, and does something in each."""

    def __init__(self, target: str, meanwhile: Callable[[], None] = lambda: None, max_retries: int = 2) -> None:
        super().__init__(target, timeout=5, max_retries=max_retries)
        self.pauses: list[float] = []
        self.meanwhile = meanwhile

    def _wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.meanwhile()


@pytest.mark.parametrize(
    "options",
    [{}, {"top": 1, "version": 1}, {"min_score": 0.9, "probabilities": "all"}, {"min_score": 0.3}],
    ids=["plain", "version", "uncertain", "certain"],
)
def test_every_option_gives_what_the_gateway_gives(
    model_server: Running, serve: Serve, options: dict[str, object]
) -> None:
    backends = Backends([model_server.target])
    gateway = serve(predictor=GrpcPredictor(backends, timeout_seconds=5))
    pictures = [png(200), b"not a picture", png(10)]
    with Client(gateway.url) as over_http, GrpcClient(model_server.target) as over_grpc:
        by_http = over_http.predict_many(pictures, model="colors", **options)  # type: ignore[arg-type]
        by_grpc = over_grpc.predict_many(pictures, model="colors", **options)  # type: ignore[arg-type]
        single = over_grpc.predict(pictures[0], model="colors", **options)  # type: ignore[arg-type]
    backends.close()
    assert [type(row) for row in by_grpc] == [Prediction, Failed, Prediction]
    assert by_grpc[::2] == [replace(row, request_id="") for row in by_http[::2] if isinstance(row, Prediction)]
    assert repr(by_grpc[1]) == repr(by_http[1])
    assert replace(single, name="") == replace(by_grpc[0], name="")  # type: ignore[type-var]
    assert (single.id, single.top[0].id) == (None if single.label is None else "r", "r")  # the card has ids
    assert single.raw_score is not None  # the card has a temperature
    assert (single.label is None) == (single.reason == "uncertain") == (options.get("min_score") == 0.9)
    assert (single.probabilities is not None) == ("probabilities" in options)


def test_the_gateway_names_its_model_server(model_server: Running, serve: Serve) -> None:
    gateway = serve(backend=model_server.target)
    with GrpcClient.from_gateway(gateway.url) as client:
        assert client.target == model_server.target
        assert client.predict(png(200), model="colors").label is not None


def test_a_model_server_that_cannot_be_reached_from_here_is_said(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(backend=f"unix:{tmp_path}/grpc")
    with pytest.raises(Unavailable, match="cannot be reached from here"):
        GrpcClient.from_gateway(gateway.url)


def test_a_server_that_is_busy_for_a_moment_is_asked_again(model_server: Running) -> None:
    model_server.colors.fails = grpc.StatusCode.UNAVAILABLE

    def recover() -> None:
        if len(client.pauses) == 2:
            model_server.colors.fails = None

    with Pausing(model_server.target, recover) as client:
        assert client.predict(png(1), model="colors").version == 1
    assert [0.125 <= client.pauses[0] <= 0.25, 0.25 <= client.pauses[1] <= 0.5] == [True, True]


def test_the_last_refusal_is_raised_and_being_ready_is_asked_once(model_server: Running) -> None:
    model_server.colors.fails = grpc.StatusCode.RESOURCE_EXHAUSTED
    with Pausing(model_server.target, max_retries=1) as client:
        with pytest.raises(Unavailable) as refused:
            client.predict(png(1), model="colors")
        assert refused.value.code == "overloaded"
        assert len(client.pauses) == 1
    with Pausing("127.0.0.1:1") as nobody:
        with pytest.raises(Unavailable) as away:
            nobody.models()
        assert away.value.code == "model_server_unavailable"
        assert len(nobody.pauses) == 2
        assert not nobody.is_ready()
        assert len(nobody.pauses) == 2


def test_a_server_that_starts_late_is_found() -> None:
    colors = ColorServer()
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler(PREDICT, colors.predict),))
    port = server.add_insecure_port("127.0.0.1:0")

    class Late(GrpcClient):
        def _wait(self, seconds: float) -> None:
            server.start()
            time.sleep(seconds)

    try:
        with Late(f"127.0.0.1:{port}", max_retries=8, timeout=2) as client:
            assert client.predict(png(1), model="colors").version == 1
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "options", [{"top": 0}, {"min_score": 2.0}, {"probabilities": "some"}, {"version": 1, "label": "stable"}]
)
def test_options_that_make_no_sense_are_refused_by_both(model_server: Running, options: dict[str, object]) -> None:
    with GrpcClient(model_server.target) as over_grpc, Client("http://127.0.0.1:1") as over_http:
        for client in (over_grpc, over_http):
            with pytest.raises(BadRequest, match="|".join(options)) as refused:
                client.predict(png(1), model="colors", **options)  # type: ignore[arg-type]
            assert refused.value.code == "invalid_parameter"
