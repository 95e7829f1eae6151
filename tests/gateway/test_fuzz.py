"""Whatever is sent, to whatever address: no 500. Faces are away here, which is a 503; tests/faces has theirs."""

import gzip
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.settings import Settings
from tests.gateway.conftest import ColorPredictor, app_with_v1
from tests.gateway.specification import INPUT, bounded, red

EXAMPLES = 400
AWAY, LATE = 503, 504  # of a model server: the latter where a request has no time
OURS = 500
TYPES = (
    *("", "image/png", "image/*", "application/json", "application/octet-stream", "text/plain", "a/b; c=\xff", "/"),
    *("multipart/form-data", "multipart/form-data; boundary=b", 'multipart/form-data; boundary=""', "x"),
)
HEADERS = (
    *("Accept", "Authorization", "Content-Encoding", "Expect", "Inference-Header-Content-Length", "Origin", "Range"),
    *("X-Request-Timeout", "X-Request-ID", "traceparent", "tracestate", "X-Forwarded-For", "Transfer-Encoding"),
)
PARAMETERS = ("top", "min_score", "probabilities", "input", "version", "label", "gallery", "tolerance", "x")
WORDS = ("0", "1", "-1", "1e999", "nan", "inf", "all", "png", "gzip", "bearer", "9" * 30, "٣", "1_0", "a" * 9000, "")

part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
text = st.sampled_from(WORDS) | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
bodies = (
    st.binary(max_size=3000)
    | st.binary(max_size=60).map(gzip.compress)
    | st.binary(max_size=900).map(lambda data: part + data + b"\r\n--b--")
    | st.integers(0, 200).map(lambda size: red()[:size])
    | st.sampled_from([b'{"instances": [1]}', b'{"inputs": [' + str(INPUT).replace("'", '"').encode() + b"]}"])
    | st.sampled_from([b"[" * 100_000, b'{"images": [{"b64": "' + b"A" * 50_000, bytes(70_000)])
)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    limits = Settings(max_image_bytes=20_000, max_image_pixels=10_000, max_images=4, max_request_bytes=50_000)
    with app_with_v1(limits, ColorPredictor()) as app:
        yield app


def test_nothing_that_is_sent_is_our_fault(app: Flask) -> None:
    rules = sorted({rule.rule for rule in app.url_map.iter_rules()})
    client = app.test_client()

    asked = st.fixed_dictionaries(
        {
            "method": st.sampled_from(["POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"]),
            "query_string": st.dictionaries(st.sampled_from(PARAMETERS), text, max_size=3),
            "headers": st.dictionaries(st.sampled_from(HEADERS), text, max_size=4),
            "content_type": st.sampled_from(TYPES),
            "data": bodies,
        }
    )

    @settings(bounded, max_examples=EXAMPLES)
    @given(rule=st.sampled_from(rules), names=st.lists(st.just("colors") | text, min_size=2, max_size=2), asked=asked)
    def never(rule: str, names: list[str], asked: Any) -> None:
        given_names = iter(names)
        path = re.sub(r"<[^>]+>", lambda _: quote(next(given_names), safe=""), rule)
        response = client.open(path, **asked)
        status = response.status_code
        assert status < OURS or status in (AWAY, LATE), response.text
        if status == AWAY and not path.endswith("/ready"):
            assert response.headers["Retry-After"]

    never()
