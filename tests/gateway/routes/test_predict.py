import base64
import gzip
import io
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import TestResponse

from serving.contract.card import Calibration, Class
from serving.contract.errors import DeadlineExceeded, ModelServerUnavailable
from serving.contract.exports import ExportState, write_state
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.gateway.conftest import ColorPredictor

Picture = Callable[..., bytes]
FORM = "multipart/form-data"


def post_form(client: FlaskClient, *files: tuple[bytes, str], url: str = "/predict/colors") -> TestResponse:
    """Encoded by httpx: Werkzeug's test client writes an empty file as a part without a body."""
    form = httpx.Request("POST", "http://x", files=[("image", (name, data)) for data, name in files])
    return client.post(url, data=form.read(), content_type=form.headers["Content-Type"])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def problem(response: TestResponse) -> tuple[int, str]:
    assert response.content_type == "application/problem+json"
    body = response.get_json()
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "error", "hint", "request_id"}
    assert body["status"] == response.status_code
    assert body["error"] == body["detail"]
    assert body["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, body["code"]


def test_a_form_with_one_picture_is_answered(client: FlaskClient, red: bytes) -> None:
    response = post_form(client, (red, "shoe.png"))
    assert response.status_code == 200
    assert response.get_json() == {
        "model": "colors",
        "version": 1,
        "predictions": [
            {
                "name": "shoe.png",
                "label": "red",
                "id": "r",
                "score": 1.0,
                "top": [
                    {"label": "red", "id": "r", "index": 0, "score": 1.0},
                    {"label": "green", "id": "g", "index": 1, "score": 0.0},
                    {"label": "blue", "id": "b", "index": 2, "score": 0.0},
                ],
            }
        ],
        "request_id": response.headers["X-Request-ID"],
    }


@pytest.mark.parametrize("ids", [("0", "1", "2"), ("red", "green", "blue"), ("0", "green", "2")])
def test_ids_that_are_only_row_numbers_or_names_are_left_out(
    client: FlaskClient, red: bytes, predictor: Any, ids: tuple[str, ...]
) -> None:
    labels = tuple(Class(one, label.name) for one, label in zip(ids, predictor.card.labels, strict=True))
    predictor.card = replace(predictor.card, labels=labels)
    (row,) = post_form(client, (red, "a.png")).get_json()["predictions"]
    assert list(row) == ["name", "label", "score", "top"]
    assert list(row["top"][0]) == ["label", "index", "score"]


def test_a_label_that_is_not_named_has_no_id(client: FlaskClient, picture: Picture) -> None:
    response = post_form(client, (picture("yellow"), "a.png"), url="/predict/colors?min_score=0.9")
    (row,) = response.get_json()["predictions"]
    assert (row["label"], row["id"], row["top"][0]["id"]) == (None, None, "r")


def test_several_pictures_run_as_one_batch(client: FlaskClient, picture: Picture, predictor: Any) -> None:
    response = post_form(client, (picture("red"), "a"), (picture("lime"), "b"), (picture("blue"), "c"))
    assert [row["label"] for row in response.get_json()["predictions"]] == ["red", "green", "blue"]
    assert predictor.batches == [3]


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/octet-stream", None])
def test_raw_bytes_are_answered(client: FlaskClient, red: bytes, content_type: str | None) -> None:
    response = client.post("/predict/colors", data=red, content_type=content_type)
    assert response.get_json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/png;name=a.png;charset=utf-8;base64,\n"])
def test_base64_json_is_answered(client: FlaskClient, picture: Picture, prefix: str) -> None:
    images = [{"b64": prefix + b64(picture("red"))}, {"b64": b64(picture("blue")), "name": "sky"}]
    response = client.post("/predict/colors", json={"images": images})
    rows = response.get_json()["predictions"]
    assert [(row["name"], row["label"]) for row in rows] == [("", "red"), ("sky", "blue")]


def test_top_limits_the_labels(client: FlaskClient, red: bytes) -> None:
    row = post_form(client, (red, "a"), url="/predict/colors?top=1").get_json()["predictions"][0]
    assert [label["label"] for label in row["top"]] == ["red"]


def test_a_label_below_the_least_score_is_not_named(client: FlaskClient, picture: Picture) -> None:
    url = "/predict/colors?min_score=0.9&top=1"
    sure, unsure = post_form(client, (picture("red"), "a"), (picture("#ff6600"), "b"), url=url).get_json()[
        "predictions"
    ]
    assert (sure["label"], "reason" in sure) == ("red", False)
    assert set(unsure) == {"name", "label", "id", "reason", "score", "top"}
    assert (unsure["label"], unsure["reason"]) == (None, "uncertain")
    assert unsure["score"] == pytest.approx(255 / (255 + 102))
    assert unsure["top"][0]["label"] == "red"


def test_all_probabilities_can_be_asked_for(client: FlaskClient, picture: Picture) -> None:
    url = "/predict/colors?probabilities=all&top=1"
    row = post_form(client, (picture("blue"), "a"), url=url).get_json()["predictions"][0]
    assert set(row) == {"name", "label", "id", "score", "top", "probabilities"}
    assert row["probabilities"] == [0, 0, 1]


def test_a_calibrated_model_tells_the_raw_score_too(client: FlaskClient, picture: Picture, predictor: Any) -> None:
    predictor.card = replace(predictor.card, calibration=Calibration(2.0))
    row = post_form(client, (picture("#ff6600"), "a")).get_json()["predictions"][0]
    assert set(row) == {"name", "label", "id", "score", "raw_score", "top"}
    assert row["score"] == pytest.approx(5 / 7)  # 255 : 102 : 0
    assert row["raw_score"] == pytest.approx(25 / 29)  # squares of 5 and 2


def test_a_version_can_be_asked_for(client: FlaskClient, red: bytes) -> None:
    assert post_form(client, (red, "a"), url="/predict/colors?version=1").status_code == 200
    assert problem(post_form(client, (red, "a"), url="/predict/colors?version=9")) == (404, "unknown_version")
    assert problem(post_form(client, (red, "a"), url="/predict/colors?label=canary")) == (404, "unknown_version")


def test_a_bad_picture_does_not_fail_its_neighbours(client: FlaskClient, red: bytes, predictor: Any) -> None:
    response = post_form(client, (red, "a"), (b"no picture", "b"), (b"", "c"), (red, "d"))
    rows = response.get_json()["predictions"]
    assert response.status_code == 200
    assert [row.get("label") for row in rows] == ["red", None, None, "red"]
    assert [row["error"]["code"] for row in rows[1:3]] == ["not_an_image", "empty_image"]
    assert rows[1]["name"] == "b"
    assert predictor.batches == [2]


def spoil_green(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Answer `value` for every class of a green picture."""
    return lambda rows: np.where(rows[:, 1:2] == 1, np.float32(value), rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.9, -0.5, 7.0])
def test_an_answer_that_is_no_probabilities_fails_its_picture_and_not_its_neighbours(
    client: FlaskClient, picture: Picture, predictor: Any, value: float
) -> None:
    predictor.damage = spoil_green(value)
    response = post_form(
        client, (picture("red"), "red.png"), (picture("lime"), "green.png"), (picture("blue"), "blue.png"),
        url="/predict/colors?probabilities=all",
    )  # fmt: skip
    assert response.status_code == 200
    red, green, blue = json.loads(response.data, parse_constant=pytest.fail)["predictions"]
    assert (red["label"], blue["label"]) == ("red", "blue")
    assert set(green) == {"name", "error"}
    assert green["error"]["code"] == "model_failed"
    assert "Model colors fails on this image: it" in green["error"]["detail"]
    alone = post_form(client, (picture("lime"), "green.png"))
    assert problem(alone) == (500, "model_failed")
    assert json.loads(alone.data, parse_constant=pytest.fail)


def test_bad_base64_does_not_fail_its_neighbours(client: FlaskClient, red: bytes) -> None:
    rows = client.post("/predict/colors", json={"images": [{"b64": "***"}, {"b64": b64(red)}]}).get_json()[
        "predictions"
    ]
    assert rows[0]["error"]["code"] == "invalid_base64"
    assert rows[1]["label"] == "red"


def test_a_new_version_in_the_middle_of_a_request_answers_it(client: FlaskClient, red: bytes, predictor: Any) -> None:
    predictor.changes = 2
    assert post_form(client, (red, "a")).get_json()["version"] == 3


def test_versions_that_never_settle_are_told_to_come_back(client: FlaskClient, red: bytes, predictor: Any) -> None:
    predictor.changes = 10
    response = post_form(client, (red, "a"))
    assert problem(response) == (503, "model_not_ready")
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"", "image/png", (400, "empty_body")),
        (b"", "application/json", (400, "empty_body")),
        (b"no picture at all", "image/png", (415, "not_an_image")),
        (b"hello", "text/plain", (415, "unsupported_content_type")),
        (b"a=b", "application/x-www-form-urlencoded", (415, "unsupported_content_type")),
        (b"", "application/x-www-form-urlencoded", (400, "empty_body")),
        (b"{", "application/json", (400, "invalid_json")),
        (b"\xff\xfe", "application/json", (400, "invalid_json")),
        (b"[" * 100_00, "application/json", (400, "invalid_json")),
        (b"[]", "application/json", (400, "invalid_json")),
        (b'{"images": 3}', "application/json", (400, "invalid_json")),
        (b'{"images": [3]}', "application/json", (400, "invalid_json")),
        (b'{"images": ["x"]}', "application/json", (400, "invalid_base64")),
        (b'{"images": [{"b64": "", "path": "/etc/passwd"}]}', "application/json", (400, "invalid_json")),
        (b'{"images": [{"b64": "", "name": 3}]}', "application/json", (400, "invalid_json")),
        (b'{"images": []}', "application/json", (400, "missing_image")),
        (b'{"images": [{"b64": "***"}]}', "application/json", (400, "invalid_base64")),
        (b'{"images": [{"b64": "\\u00e9"}]}', "application/json", (400, "invalid_base64")),
        (b'{"images": [{"b64": ""}]}', "application/json", (400, "empty_image")),
        (b"x", "multipart/form-data", (400, "invalid_multipart")),
        (b"x", "multipart/form-data; boundary=b", (400, "invalid_multipart")),
        (b"", "multipart/form-data; boundary=b", (400, "missing_image")),
    ],
)
def test_a_request_that_is_wrong_has_a_code_of_its_own(
    client: FlaskClient, data: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    assert problem(client.post("/predict/colors", data=data, content_type=content_type)) == expected


def test_a_form_without_the_field_says_which_fields_it_has(client: FlaskClient, red: bytes) -> None:
    form = {"file": (io.BytesIO(red), "a.png"), "other": (io.BytesIO(red), "b.png"), "note": "hello"}
    response = client.post("/predict/colors", data=form)
    assert problem(response) == (400, "missing_image")
    assert "field 'image'; its fields: file, note, other" in response.get_json()["detail"]


@pytest.mark.parametrize("field", ["file", "files", "images[]", "img", "picture", "photo", "upload", ""])
def test_the_only_file_of_a_form_is_taken_whatever_its_field_is(client: FlaskClient, red: bytes, field: str) -> None:
    form = httpx.Request(
        "POST", "http://x", data={"note": "hello"}, files={field: ("shoe.png", red), "empty": ("", b"")}
    )
    response = client.post("/predict/colors", data=form.read(), content_type=form.headers["Content-Type"])
    assert [(row["name"], row["label"]) for row in response.get_json()["predictions"]] == [("shoe.png", "red")]


def test_bytes_without_a_file_name_are_a_picture(client: FlaskClient, red: bytes) -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\n" + red + b"\r\n--b--\r\n"  # as .NET writes it
    response = client.post("/predict/colors", data=body, content_type="multipart/form-data; boundary=b")
    assert [(row["name"], row["label"]) for row in response.get_json()["predictions"]] == [("", "red")]


def test_the_field_counts_where_there_are_other_files(client: FlaskClient, picture: Picture) -> None:
    files = {"file": ("a.png", picture("blue")), "image": ("b.png", picture("red"))}
    form = httpx.Request("POST", "http://x", files=files)
    response = client.post("/predict/colors", data=form.read(), content_type=form.headers["Content-Type"])
    assert [(row["name"], row["label"]) for row in response.get_json()["predictions"]] == [("b.png", "red")]


def test_a_data_url_in_a_field_of_text_is_a_picture(client: FlaskClient, red: bytes) -> None:
    response = client.post("/predict/colors", data={"image": "data:image/png;base64," + b64(red)}, content_type=FORM)
    assert response.get_json()["predictions"][0]["label"] == "red"
    path = client.post("/predict/colors", data={"image": "photo.jpg"}, content_type=FORM)  # curl -F without @
    assert problem(path) == (400, "missing_image")
    wrong = client.post("/predict/colors", data={"image": "data:image/png;base64,***"}, content_type=FORM)
    assert problem(wrong) == (400, "invalid_base64")


def test_base64_json_may_hold_the_texts_alone(client: FlaskClient, picture: Picture) -> None:
    response = client.post("/predict/colors", json={"images": [b64(picture("red")), {"b64": b64(picture("blue"))}]})
    assert [row["label"] for row in response.get_json()["predictions"]] == ["red", "blue"]


def test_what_curl_and_urllib_call_a_form_by_default_may_be_a_picture(client: FlaskClient, picture: Picture) -> None:
    def post(data: bytes) -> TestResponse:
        return client.post("/predict/colors", data=data, content_type="application/x-www-form-urlencoded")

    assert post(picture("red")).get_json()["predictions"][0]["label"] == "red"
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        with_curls_d = picture("red", kind).translate(None, b"\0\r\n")
        response = post(with_curls_d)
        assert problem(response) == (415, "unsupported_content_type"), kind
        assert "--data-binary" in response.get_json()["hint"]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS = [("gzip", gzip.compress), ("X-Gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]


@pytest.mark.parametrize(("coding", "packed"), CODINGS)
@pytest.mark.parametrize("kind", ["raw", "json", "form"])
def test_a_body_may_be_compressed(
    client: FlaskClient, red: bytes, kind: str, coding: str, packed: Callable[[bytes], bytes]
) -> None:
    form = httpx.Request("POST", "http://x", files={"image": ("a.png", red)})
    body, content_type = {
        "raw": (red, "image/png"),
        "json": (json.dumps({"images": [{"b64": b64(red)}]}).encode(), "application/json"),
        "form": (form.read(), form.headers["Content-Type"]),
    }[kind]
    headers = {"Content-Encoding": coding}
    response = client.post("/predict/colors", data=packed(body), content_type=content_type, headers=headers)
    assert response.get_json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(("coding", "packed"), CODINGS)
def test_a_compressed_body_that_is_wrong_is_refused(
    client: FlaskClient, red: bytes, coding: str, packed: Callable[[bytes], bytes]
) -> None:
    def post(data: bytes) -> tuple[int, str]:
        return problem(client.post("/predict/colors", data=data, headers={"Content-Encoding": coding}))

    assert post(packed(red)[:-5]) == (400, "bad_request")
    assert post(packed(red) + packed(red)) == (400, "bad_request")
    assert post(b"\xff" + red) == (400, "bad_request")
    assert post(b"") == (400, "bad_request")
    assert post(packed(bytes(60_000))) == (413, "request_too_large")


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, deflate"])
def test_another_compression_names_those_that_are_accepted(client: FlaskClient, red: bytes, coding: str) -> None:
    response = client.post("/predict/colors", data=red, content_type="image/png", headers={"Content-Encoding": coding})
    assert problem(response) == (415, "unsupported_content_encoding")
    assert "gzip and deflate" in response.get_json()["detail"]


def test_a_body_may_say_that_it_is_not_compressed(client: FlaskClient, red: bytes) -> None:
    response = client.post("/predict/colors", data=red, headers={"Content-Encoding": "identity"})
    assert response.get_json()["predictions"][0]["label"] == "red"


def test_a_form_part_without_a_name_is_named_as_such(client: FlaskClient) -> None:
    parts = [b'filename="x"', b'filename="w"', b'name="y"']
    body = (
        b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n\r\nz\r\n" for part in parts) + b"--b--\r\n"
    )
    response = client.post("/predict/colors", data=body, content_type="multipart/form-data; boundary=b")
    assert problem(response) == (400, "missing_image")
    assert "one without a name, y" in response.get_json()["detail"]


def test_a_truncated_picture_has_a_code_of_its_own(client: FlaskClient, picture: Picture) -> None:
    data = picture("red", "JPEG", (60, 60))
    response = client.post("/predict/colors", data=data[:-80], content_type="image/jpeg")
    assert problem(response) == (400, "truncated_image")


def test_limits_are_named_with_their_settings(client: FlaskClient, picture: Picture, red: bytes) -> None:
    large = client.post("/predict/colors", data=bytes(20_001), content_type="image/png")
    assert problem(large) == (413, "image_too_large")
    assert "SIGHTLINE_MAX_IMAGE_BYTES" in large.get_json()["detail"]
    wide = client.post("/predict/colors", data=picture("red", "PNG", (101, 100)), content_type="image/png")
    assert problem(wide) == (413, "too_many_pixels")
    assert "SIGHTLINE_MAX_IMAGE_PIXELS" in wide.get_json()["detail"]
    many = post_form(client, *[(red, str(index)) for index in range(5)])
    assert problem(many) == (413, "too_many_images")
    assert "SIGHTLINE_MAX_IMAGES" in many.get_json()["detail"]
    whole = client.post("/predict/colors", data=bytes(50_001), content_type="image/png")
    assert problem(whole) == (413, "request_too_large")
    assert "SIGHTLINE_MAX_REQUEST_BYTES" in whole.get_json()["detail"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("top=0", "top is '0'"),
        ("top=x", "top is 'x'"),
        ("min_score=2", "min_score is '2'"),
        ("min_score=nan", "min_score is 'nan'"),
        ("probabilities=some", "probabilities is 'some'"),
        ("input=jpeg", "input is 'jpeg'"),
        ("version=-1", "version is '-1'"),
        ("version=latest", "version is 'latest'"),
        (f"version={2**63}", "version is"),
        ("label=a/b", "label is 'a/b'"),
        ("label=", "label is ''"),
        ("version=1&label=a", "Both"),
        ("topp=1", "parameter 'topp' is unknown"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(client: FlaskClient, red: bytes, query: str, words: str) -> None:
    response = client.post(f"/predict/colors?{query}", data=red, content_type="image/png")
    assert problem(response) == (400, "invalid_parameter")
    assert words in response.get_json()["detail"]


def test_a_model_that_is_being_exported_is_asked_for_again_later(
    predictor: ColorPredictor, red: bytes, tmp_path: Path
) -> None:
    client = create_app(Settings(exports_dir=str(tmp_path)), predictor).test_client()
    write_state(tmp_path / "0-digits.json", ExportState("digits", "running", "epoch 3 of at most 10"))
    response = client.post("/predict/digits", data=red, content_type="image/png")
    assert problem(response) == (503, "model_not_ready")
    assert response.headers["Retry-After"]
    assert "epoch 3 of at most 10" in response.get_json()["detail"]
    write_state(tmp_path / "0-digits.json", ExportState("digits", "failed", "no space"))
    assert problem(client.post("/predict/digits", data=red, content_type="image/png")) == (404, "unknown_model")


def test_an_unknown_model_names_the_known_ones(client: FlaskClient, red: bytes) -> None:
    response = client.post("/predict/dogs", data=red, content_type="image/png")
    assert problem(response) == (404, "unknown_model")
    assert "colors" in response.get_json()["hint"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelServerUnavailable("away"), (503, "model_server_unavailable")),
        (DeadlineExceeded("slow"), (504, "deadline_exceeded")),
        (ZeroDivisionError("secret"), (500, "error")),
    ],
)
def test_a_failure_behind_the_gateway_is_a_problem_without_a_traceback(
    client: FlaskClient, red: bytes, predictor: Any, error: Exception, expected: tuple[int, str]
) -> None:
    predictor.fails = error
    response = client.post("/predict/colors", data=red, content_type="image/png")
    assert problem(response) == expected
    assert "secret" not in response.text


def test_a_request_id_is_echoed_when_it_is_harmless(client: FlaskClient, red: bytes) -> None:
    def echoed(given: str) -> str:
        headers = {"X-Request-ID": given}
        return client.post("/predict/colors", data=red, content_type="image/png", headers=headers).headers[
            "X-Request-ID"
        ]

    assert echoed("abc-123") == "abc-123"
    assert echoed("white space") != "white space"
    assert echoed("x" * 200) != "x" * 200


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "metadata"),
    [
        ({}, ()),
        ({"traceparent": TRACE}, (("traceparent", TRACE),)),
        ({"traceparent": TRACE, "tracestate": "a=b"}, (("traceparent", TRACE), ("tracestate", "a=b"))),
        ({"traceparent": TRACE.upper()}, ()),
        ({"traceparent": "00-" + "0" * 32 + TRACE[35:]}, ()),
        ({"tracestate": "a=b"}, ()),
    ],
)
def test_a_trace_is_passed_on_when_it_is_well_formed(
    client: FlaskClient, red: bytes, predictor: Any, headers: dict[str, str], metadata: Any
) -> None:
    client.post("/predict/colors", data=red, content_type="image/png", headers=headers)
    assert predictor.calls[0].metadata == metadata


@pytest.mark.parametrize(("given", "seconds"), [(None, 30), ("0.5", 0.5), ("1000", 30)])
def test_a_request_may_shorten_its_deadline(
    client: FlaskClient, red: bytes, predictor: Any, given: str | None, seconds: float
) -> None:
    headers = {} if given is None else {"X-Request-Timeout": given}
    client.post("/predict/colors", data=red, content_type="image/png", headers=headers)
    left = predictor.calls[0].deadline - time.monotonic()
    assert seconds - 10 < left <= seconds


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan"])
def test_a_deadline_that_is_none_is_refused(client: FlaskClient, red: bytes, given: str) -> None:
    headers = {"X-Request-Timeout": given}
    response = client.post("/predict/colors", data=red, content_type="image/png", headers=headers)
    assert problem(response) == (400, "invalid_parameter")


def test_an_unknown_address_and_a_wrong_method_are_problems(client: FlaskClient) -> None:
    assert problem(client.get("/nowhere")) == (404, "unknown_route")
    wrong = client.get("/predict/colors")
    assert problem(wrong) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]


CONTENT_TYPES = st.sampled_from(
    ["image/png", "application/json", "multipart/form-data; boundary=b", "text/plain", "application/octet-stream", ""]
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=2000), content_type=CONTENT_TYPES)
def test_random_bytes_are_never_our_fault(client: FlaskClient, data: bytes, content_type: str) -> None:
    response = client.post("/predict/colors", data=data, content_type=content_type)
    assert response.status_code < 500


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["images", "b64", "name", "x"]), inner),
    )
)
def test_random_json_is_never_our_fault(client: FlaskClient, body: Any) -> None:
    response = client.post("/predict/colors", data=json.dumps(body), content_type="application/json")
    assert response.status_code < 500


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([b"--b", b"\r\n", b"--", b'Content-Disposition: form-data; name="image"'])
        | st.binary(max_size=30),
        max_size=20,
    )
)
def test_random_forms_are_never_our_fault(client: FlaskClient, parts: list[bytes]) -> None:
    response = client.post("/predict/colors", data=b"".join(parts), content_type="multipart/form-data; boundary=b")
    assert response.status_code < 500


def test_images_with_too_many_pixels_together_are_refused_and_the_limit_is_named(
    settings: Settings, predictor: Any, picture: Picture
) -> None:
    client = create_app(settings.model_copy(update={"max_request_pixels": 199}), predictor).test_client()
    image = picture(size=(10, 10))
    form = post_form(client, (image, "a"), (image, "b"))
    assert problem(form) == (413, "request_too_large")
    assert (
        "2 images have 200 pixels together; the limit is 199 (SIGHTLINE_MAX_REQUEST_PIXELS)"
        in form.get_json()["detail"]
    )
    as_json = client.post("/predict/colors", json={"images": [{"b64": b64(image)}] * 2})
    assert problem(as_json) == (413, "request_too_large")
    assert predictor.batches == []
    assert post_form(client, (image, "a"), (b"text", "b")).status_code == 200


def test_json_past_its_limits_is_refused(settings: Settings, predictor: Any, red: bytes) -> None:
    limited = settings.model_copy(update={"max_json_bytes": 1_000, "max_json_values": 50})
    client = create_app(limited, predictor).test_client()

    def post(text: str) -> TestResponse:
        return client.post("/predict/colors", data=text, content_type="application/json")

    assert post(json.dumps({"images": [{"b64": b64(red)}]})).status_code == 200
    assert problem(post(f'"{"A" * 1_000}"')) == (413, "request_too_large")
    assert problem(post(f"[{'1,' * 50}1]")) == (413, "request_too_large")
    assert problem(client.post("/predict/colors", data="[" * 80, content_type="application/json")) == (
        413,
        "request_too_large",
    )


def test_json_nested_too_deep_is_refused(client: FlaskClient) -> None:
    response = client.post("/predict/colors", data="[" * 1_000, content_type="application/json")
    assert problem(response) == (400, "invalid_json")
    assert "deeper than 64 levels" in response.get_json()["detail"]


def test_new_preprocessing_of_a_version_that_turns_up_is_applied(client: FlaskClient, predictor: Any) -> None:
    """The pictures are decoded again: they were dropped after the first version's preprocessing."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), "red").save(buffer, "PNG")
    old = predictor.card
    new = replace(
        old,
        preprocessing=replace(old.preprocessing, fit="pad", height=4, width=4),
        input=replace(old.input, shape=(None, 4, 4, 3)),
    )
    describe, cards, shapes = predictor.describe, iter([old, new]), []
    predictor.changes = 1

    def described(*args: Any) -> Any:
        predictor.card = next(cards)
        return describe(*args)

    predict = predictor.predict
    predictor.describe = described
    predictor.predict = lambda served, batch, call: (shapes.append(batch.shape), predict(served, batch, call))[1]
    response = post_form(client, (buffer.getvalue(), "a"), url="/predict/colors?input=png")
    assert shapes == [(1, 2, 2, 3), (1, 4, 4, 3)]
    row = response.get_json()["predictions"][0]
    assert row["label"] == "red"
    with Image.open(io.BytesIO(base64.b64decode(row["input"].partition(",")[2]))) as seen:
        assert seen.size == (4, 4)
