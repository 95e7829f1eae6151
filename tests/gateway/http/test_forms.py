"""The parser of forms: what browsers, curl and our clients send, and what is refused."""

import httpx
import pytest

from serving.contract.errors import InvalidMultipart, RequestTooLarge
from serving.gateway.http.forms import MOST_PARTS, Part, read_form


def form_of(*parts: tuple[bytes, bytes]) -> bytes:
    """A form with the boundary `b`. parts: parameters of the disposition, and contents."""
    written = [b"--b\r\nContent-Disposition: form-data; " + about + b"\r\n\r\n" + data for about, data in parts]
    return b"\r\n".join([*written, b"--b--\r\n"])


@pytest.mark.parametrize(
    ("about", "name", "filename"),
    [
        (b'name="image"; filename="shoe.png"', "image", "shoe.png"),
        (b"name=image; filename=shoe.png", "image", "shoe.png"),
        (b'name="image"', "image", None),
        (b'name="image"; filename=""', "image", ""),
        (b'filename="x"', "", "x"),
        ('name="image"; filename="Füße.png"'.encode(), "image", "Füße.png"),
        ('name="image"; filename="Füße.png"'.encode("latin1"), "image", "F\ufffd\ufffde.png"),
        (b'name="image"; filename="a%22b.png"', "image", 'a"b.png'),
        (b"name=\"image\"; filename*=UTF-8''F%C3%BC%C3%9Fe.png", "image", "Füße.png"),
        (b"name=image; filename=\"=?utf-8?B?RsO8w59l?=\"; filename*=utf-8''F%C3%BC%C3%9Fe", "image", "Füße"),  # .NET
        (b"name=image; filename*=koi8-r''%FF; x=y", "image", "%FF"),
    ],
)
def test_names_are_read_as_they_were_written(about: bytes, name: str, filename: str | None) -> None:
    assert read_form(form_of((about, b"data")), "b") == [Part(name, filename, b"data")]


def test_contents_keep_every_byte_and_their_order() -> None:
    contents = [b"", b"\r\n", b"-b", b"\r\n--", bytes(range(256)) * 500, b"\r\n--B--\r\n"]
    parts = read_form(form_of(*((b'name="image"; filename="x"', data) for data in contents)), "b")
    assert [part.data for part in parts] == contents


def test_a_part_with_an_empty_body_is_empty_and_one_without_a_body_is_refused() -> None:
    about = b'Content-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    with_empty = b"--b\r\n" + about + b"\r\n--b\r\n" + about + b"data\r\n--b--\r\n"
    assert [part.data for part in read_form(with_empty, "b")] == [b"", b"data"]
    without = b"--b\r\n" + about + b"--b\r\n" + about + b"data\r\n--b--\r\n"
    with pytest.raises(InvalidMultipart):
        read_form(without, "b")


def test_what_httpx_writes_is_read() -> None:
    request = httpx.Request("POST", "http://x", files=[("image", ("a b.png", b"1")), ("image", ("ü.png", b"2"))])
    body, boundary = request.read(), request.headers["Content-Type"].partition("boundary=")[2]
    assert read_form(body, boundary) == [Part("image", "a b.png", b"1"), Part("image", "ü.png", b"2")]


@pytest.mark.parametrize(
    "body",
    [
        form_of((b'name="image"; filename="x"', b"data"))[:-5],
        form_of((b'name="image"; filename="x"', b"data")).replace(b"--b", b"--c"),
        b"--b\r\n\r\ndata\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=x\nContent-Type: x\r\n\r\ndata\r\n--b--\r\n"[:30],
    ],
    ids=["cut off", "another boundary", "no header", "within a header"],
)
def test_a_form_that_cannot_be_taken_apart_says_so(body: bytes) -> None:
    with pytest.raises(InvalidMultipart, match=f"The form of {len(body)} bytes cannot be parsed"):
        read_form(body, "b")


@pytest.mark.parametrize("data", [b"", b"data"])
def test_a_form_of_too_many_parts_is_refused(data: bytes) -> None:
    parts = [(b'name="image"; filename="x"', data)] * MOST_PARTS
    assert len(read_form(form_of(*parts), "b")) == MOST_PARTS
    with pytest.raises(RequestTooLarge, match="it may have 1,000 parts"):
        read_form(form_of(*parts, parts[0]), "b")
