import pickle
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import httpx
import pytest
from sightline import (
    AccessDenied,
    BadImage,
    BadRequest,
    Client,
    DeadlineExceeded,
    NotFound,
    ServerError,
    SightlineError,
    Unavailable,
    UnexpectedAnswer,
)
from sightline.errors import error_from_response

from serving.contract import errors as contract
from serving.gateway.http.errors import status_of
from tests.clients.python.strangers import Canned
from tests.clients.shades import Service, png

# The nearest class of an error's ancestry decides.
CLASSES: dict[type[contract.SightlineError], type[SightlineError]] = {
    contract.BadImage: BadImage,
    contract.UnusableFace: BadImage,
    contract.NotFound: NotFound,
    contract.Unauthenticated: AccessDenied,
    contract.Forbidden: AccessDenied,
    contract.Unavailable: Unavailable,
    contract.DeadlineExceeded: DeadlineExceeded,
    contract.UploadTooSlow: DeadlineExceeded,
    contract.UnsupportedContentType: BadImage,
    contract.BadRequest: BadRequest,
    contract.MethodNotAllowed: BadRequest,
    contract.Conflict: BadRequest,
    contract.SightlineError: ServerError,
}


def errors_of_the_service(kind: type[contract.SightlineError]) -> Iterator[type[contract.SightlineError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from errors_of_the_service(child)


@pytest.mark.parametrize(
    "kind", dict.fromkeys(errors_of_the_service(contract.SightlineError)), ids=lambda kind: kind.__name__
)
def test_every_error_of_the_service_has_a_class_and_keeps_its_code(kind: type[contract.SightlineError]) -> None:
    problem = {"code": kind.code, "detail": "it is so", "hint": "Do this.", "request_id": "r1"}
    request = httpx.Request("GET", "http://x")
    error = error_from_response(httpx.Response(status_of(kind("x")), json=problem, request=request))
    assert type(error) is next(CLASSES[base] for base in kind.__mro__ if base in CLASSES)
    assert (error.code, error.detail, error.hint, error.request_id) == (kind.code, "it is so", "Do this.", "r1")
    assert str(error) == "it is so. Do this."


def test_an_error_can_be_sent_to_another_process() -> None:
    error = BadImage("it is so", hint="Do this.", code="not_an_image", status=415, request_id="r1")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), copy.args) == (BadImage, vars(error), error.args)


def test_errors_are_those_of_the_server_with_status_and_request_id(service: Service) -> None:
    with Client(service.url) as client:
        with pytest.raises(NotFound, match="'nobody'") as unknown:
            client.predict(png(1), model="nobody")
        with pytest.raises(BadImage) as bad:
            client.predict(b"text", model="shades")
        with pytest.raises(NotFound) as version:
            client.predict(png(1), model="shades", version=9)
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_model")
    assert unknown.value.request_id
    assert "shades" in unknown.value.hint
    assert (bad.value.status, bad.value.code) == (415, "not_an_image")
    assert version.value.code == "unknown_version"


def test_answers_of_strangers_are_understood_as_far_as_they_go() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}", max_retries=0) as client:
            with pytest.raises(UnexpectedAnswer, match="not Sightline's"):
                client.models()
            with pytest.raises(UnexpectedAnswer, match="labels"):
                client.model("odd")
            with pytest.raises(SightlineError) as newer:
                client.model("newer")
            with pytest.raises(SightlineError, match="502") as proxy:
                client.model("proxy")
        server.shutdown()
        thread.join()
    assert (newer.value.code, newer.value.status, newer.value.hint) == ("brand_new", 409, "wait")
    assert isinstance(newer.value, BadRequest)
    assert BadRequest.code == "bad_request"  # that of the class is as it was
    assert isinstance(proxy.value, Unavailable)
    assert proxy.value.code == "unavailable"


def test_a_service_that_is_too_slow_is_a_deadline() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:  # accepts, and never answers: nobody serves it
        url = f"http://127.0.0.1:{server.server_port}"
        with Client(url, timeout=0.1, max_retries=0) as client, pytest.raises(DeadlineExceeded, match="in time"):
            client.models()
