"""The faces methods against a real HTTP server that answers as the gateway does."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
from sightline import AsyncClient, BadImage, Client, NotFound
from sightline.faces import AsyncFaces, Box, Candidate, Faces, Gallery, Person, PhotosRefused, Refusal

from tests.clients.shades import png

FACE = {
    "box": {"top": 1, "right": 9, "bottom": 8, "left": 2},
    "name": "obama",
    "distance": 0.37,
    "candidates": [{"name": "obama", "distance": 0.37}, {"name": "biden", "distance": 0.8}],
}
DARK = {"code": "dark", "text": "too dark", "measured": 12.0, "limit": 30.0}
STRANGER = {**FACE, "name": None, "distance": None, "candidates": []}


ENROLLED = {
    "person": "rose",
    "gallery": "default",
    "photos": [
        {"name": "a", "accepted": True, "stored": True, "reasons": [], "faces": [], "tried": []},
        {"name": "b", "accepted": False, "stored": False, "reasons": [DARK]},
        {"name": "c", "accepted": False, "error": {"code": "not_an_image", "detail": "not a picture", "hint": ""}},
    ],
}


class FakeFaces(BaseHTTPRequestHandler):
    """Knows obama; finds a face and a stranger in every photo, none in one of 13 gray."""

    asked: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.command, unquote(self.path), body))
        route = urlsplit(self.path).path
        if png(13) in body and route.startswith("/faces/people"):
            refused = [{"name": "a", "accepted": False, "stored": False, "reasons": [DARK]}]
            self._answer(422, {"code": "face_refused", "detail": "too dark", "hint": "More light.", "photos": refused})
        elif png(13) in body:
            self._answer(422, {"code": "no_face", "detail": "no face was found"})
        elif "annotate=png" in self.path:
            self._answer(200, png(99))
        elif route == "/faces/identify":
            self._answer(200, {"faces": [FACE, STRANGER], "tolerance": 0.6, "known": 5, "tried": ["upright"]})
        elif route == "/faces/compare":
            self._answer(200, {"distance": 0.4, "tolerance": 0.6, "same": True})
        else:
            self._answer(200, ENROLLED)

    def do_GET(self) -> None:
        galleries = [{"name": "staff", "people": 1, "encodings": 2, "encoder": "dlib@1"}]
        self._answer(
            200,
            {"galleries": galleries}
            if self.path == "/faces/galleries"
            else {"people": [{"name": "obama", "encodings": 2, "expires": "2027-12-31"}]},
        )

    def do_DELETE(self) -> None:
        self.asked.append((self.command, unquote(self.path), b""))
        known = urlsplit(self.path).path.endswith("/obama")
        self._answer(
            200 if known else 404, {"forgotten": 2} if known else {"code": "unknown_person", "detail": "nobody"}
        )

    def _answer(self, status: int, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Request-ID", "r1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    FakeFaces.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeFaces) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_face_of_a_photo_is_named_or_a_stranger(url: str) -> None:
    with Client(url) as client:
        found = client.faces.identify(png(1), tolerance=0.5)
    assert found.names == ("obama", None)
    assert found.faces[0].box == Box(1, 9, 8, 2)
    assert found.faces[0].candidates[1] == Candidate("biden", 0.8)
    assert (found.tolerance, found.known, found.tried, found.request_id) == (0.6, 5, ("upright",), "r1")
    assert repr(found.faces[0]) == "Face('obama' at 0.370, top=1, left=2)"
    assert repr(found.faces[1]).startswith("Face(unknown")
    assert FakeFaces.asked[0][1] == "/faces/identify?tolerance=0.5"


def test_two_photos_are_compared(url: str) -> None:
    with Client(url) as client:
        assert client.faces.compare(png(1), png(2)).same
        with pytest.raises(BadImage) as none:
            client.faces.compare(png(1), png(13))
    assert (none.value.status, none.value.code) == (422, "no_face")
    body = FakeFaces.asked[0][2]
    assert b'name="a"' in body
    assert body.index(png(1)) < body.index(b'name="b"') < body.index(png(2))


def test_people_are_enrolled_listed_and_forgotten(url: str) -> None:
    with Client(url) as client:
        enrolled = client.faces.enrol("rose/leslie é", [png(1), png(2)])
        assert [(photo.accepted, photo.reasons) for photo in enrolled.photos] == [
            (True, ()), (False, (Refusal("dark", "too dark", 12.0, 30.0),)), (False, ()),
        ]  # fmt: skip
        failed = enrolled.photos[2].error
        assert failed is not None
        assert (type(failed), failed.code, failed.detail) == (BadImage, "not_an_image", "not a picture")
        client.faces.enrol("one", png(1))
        client.faces.enrol("many", (png(gray) for gray in (1, 2, 3)))
        assert client.faces.people() == [Person("obama", 2, "2027-12-31")]
        assert client.faces.forget("obama", gallery="work") == 2
        with pytest.raises(NotFound):
            client.faces.forget("nobody")
    assert FakeFaces.asked[0][1] == "/faces/people/rose/leslie é"
    assert [body.count(b'name="image"') for _, _, body in FakeFaces.asked[:3]] == [2, 1, 3]


def test_the_asynchronous_client_has_faces_too(url: str) -> None:
    async def conversation() -> None:
        async with AsyncClient(url) as client:
            assert (await client.faces.identify(png(1))).names == ("obama", None)
            assert (await client.faces.compare(png(1), png(2))).distance == 0.4
            assert (await client.faces.enrol("rose", [png(1)])).person == "rose"
            assert await client.faces.people() == [Person("obama", 2, "2027-12-31")]
            assert await client.faces.galleries() == [Gallery("staff", 1, 2, "dlib@1")]
            assert await client.faces.annotate(png(1), top=2) == png(99)
            with pytest.raises(NotFound):
                await client.faces.forget("nobody")

    asyncio.run(conversation())


def test_photos_that_are_all_refused_are_an_error_with_the_verdict_on_each(url: str) -> None:
    with Client(url) as client, pytest.raises(PhotosRefused, match="too dark") as refused:
        client.faces.enrol("rose", [png(13)])
    assert (refused.value.status, refused.value.code) == (422, "face_refused")
    assert [photo.reasons for photo in refused.value.photos] == [(Refusal("dark", "too dark", 12.0, 30.0),)]


def test_every_argument_reaches_the_service(url: str) -> None:
    with Client(url) as client:
        assert client.faces.galleries() == [Gallery("staff", 1, 2, "dlib@1")]
        found = client.faces.annotate(png(1), gallery="staff", tolerance=0.5, top=3, model="cnn")
        client.faces.compare(png(1), png(2), tolerance=0.4, model="cnn")
        client.faces.enrol(
            "rose",
            png(1),
            gallery="staff",
            expires="2027-12-31",
            replace=True,
            keep_photos=True,
            allow=["dark", "blurred"],
            model="hog",
        )
    assert found == png(99)
    assert [path for _, path, _ in FakeFaces.asked] == [
        "/faces/identify?gallery=staff&tolerance=0.5&top=3&model=cnn&annotate=png",
        "/faces/compare?tolerance=0.4&model=cnn",
        "/faces/people/rose?gallery=staff&expires=2027-12-31&replace=true&keep_photos=true&allow=dark,blurred&model=hog",
    ]


def test_both_have_the_same_methods() -> None:
    assert [name for name in dir(Faces) if name[0] != "_"] == [name for name in dir(AsyncFaces) if name[0] != "_"]
