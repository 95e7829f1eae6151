"""A real gateway over real HTTP."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from werkzeug.serving import make_server

from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.clients.shades import Serve, Service, ShadePredictor


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts gateways; every one is stopped afterwards."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    stops: list[Callable[[], None]] = []

    def start(port: int = 0, predictor: ShadePredictor | None = None, **settings: object) -> Service:
        predictor = predictor or ShadePredictor()
        app = create_app(Settings(**settings), predictor)  # type: ignore[arg-type]
        server = make_server("127.0.0.1", port, app, threaded=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()

        def stop() -> None:
            if not thread.is_alive():
                return
            server.shutdown()
            thread.join()
            server.server_close()

        stops.append(stop)
        return Service(server.server_port, predictor, stop)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def service(serve: Serve) -> Service:
    """A gateway that serves `shades`."""
    return serve()
