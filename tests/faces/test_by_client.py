"""The Python client's faces against the gateway's routes, with real dlib and a real gallery."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sightline import BadImage, Client, NotFound
from werkzeug.serving import make_server

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.faces.recognition import Faces
from serving.gateway.app import create_app
from serving.gateway.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def client(known: Faces) -> Iterator[Client]:
    backends = Backends(["127.0.0.1:9"])  # never asked
    server = make_server("127.0.0.1", 0, create_app(Settings(), GrpcPredictor(backends), known), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()
    backends.close()


def test_the_whole_life_of_a_known_person(client: Client, photos: Path) -> None:
    obama = photos / "unknown" / "obama2.jpg"
    assert client.faces.identify(obama).names == ("obama",)
    assert client.faces.identify(obama, tolerance=0.01).names == (None,)
    known = {person.name: person.encodings for person in client.faces.people()}
    assert (len(known), known["obama"]) == (5, 1)
    assert client.faces.forget("obama") == 1
    assert client.faces.identify(obama).names == (None,)
    with pytest.raises(NotFound):
        client.faces.forget("obama")
    enrolled = client.faces.enrol("obama", [next((photos / "known").glob("obama.*"))])
    assert [(photo.accepted, photo.stored, photo.reasons) for photo in enrolled.photos] == [(True, True, ())]
    assert client.faces.identify(obama).names == ("obama",)


def test_two_photos_are_compared(client: Client, photos: Path) -> None:
    found = client.faces.compare(photos / "unknown" / "obama2.jpg", next((photos / "known").glob("obama.*")))
    assert found.same
    assert found.distance < found.tolerance == 0.6
    with pytest.raises(BadImage, match="no face"):
        client.faces.compare(photos / "unknown" / "obama2.jpg", _blank())


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (200, 100), "teal").save(file, "PNG")
    return file.getvalue()
