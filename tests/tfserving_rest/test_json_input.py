import base64

import pytest

from serving.backend.protos import wire_pb2 as wire
from serving.runtimes.status import CallError
from serving.tfserving_rest.json_input import tensor_from_json

DATA = b"\xff\xfe?>picture"


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        base64.encodebytes(DATA).decode(),
        "data:image/png;base64," + base64.b64encode(DATA).decode(),
    ],
)
def test_base64_is_read_as_everywhere(text: str) -> None:
    assert list(tensor_from_json([{"b64": text}], wire.DT_STRING).string_val) == [DATA]


def test_what_is_no_base64_is_refused_as_over_there() -> None:
    with pytest.raises(CallError, match="Unable to base64 decode"):
        tensor_from_json([{"b64": "***"}], wire.DT_STRING)
