from sightline.calls import multipart, query
from sightline.pictures import Upload


def test_odd_names_travel_in_a_form() -> None:
    body, headers = multipart({"image": [Upload('a"b\r\nc\udcff.png', b"\x00\r\n--")]})
    assert b'filename="a%22b%0D%0Ac?.png"' in body
    assert body.endswith(headers["Content-Type"].split("=")[1].encode() + b"--\r\n")


def test_a_query_holds_what_is_given() -> None:
    given = {"top": 1, "gallery": None, "replace": False, "keep_photos": True, "allow": ["dark", "blurred"], "a": []}
    assert query(given) == {"top": "1", "keep_photos": "true", "allow": "dark,blurred"}
