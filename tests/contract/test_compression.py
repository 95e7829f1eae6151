import gzip
import zlib

import pytest

from serving.contract.compression import unpack, unpacked_memory
from serving.contract.errors import BadRequest, RequestTooLarge


def test_gzip_is_unpacked() -> None:
    assert unpack(gzip.compress(b"[1]"), "gzip", 10) == b"[1]"
    blank = b"0," * 200_000  # the numbers of a blank picture
    assert unpack(gzip.compress(blank), "gzip", 10_000_000) == blank


def test_gzip_is_refused_past_its_bytes_and_its_ratio() -> None:
    with pytest.raises(RequestTooLarge, match=r"more than 10 bytes.*SIGHTLINE_MAX_REQUEST_BYTES"):
        unpack(gzip.compress(bytes(11)), "gzip", 10)
    with pytest.raises(RequestTooLarge, match="100 times"):
        unpack(gzip.compress(bytes(5_000_000)), "gzip", 100_000_000)


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"0123456789")[:-5], b""], ids=["another format", "cut off", "empty"]
)
def test_broken_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        unpack(data, "gzip", 100)


def test_deflate_is_unpacked_with_and_without_its_header() -> None:
    packed = zlib.compress(b"[1]")
    assert unpack(packed, "deflate", 10) == unpack(packed[2:-4], "deflate", 10) == b"[1]"


def test_several_streams_are_refused() -> None:
    with pytest.raises(BadRequest, match="after its end"):
        unpack(gzip.compress(b"[1]") * 2, "gzip", 10)


def test_memory_is_an_upper_bound() -> None:
    assert unpacked_memory(b"x", 10_000_000) == 1_000_000
    assert unpacked_memory(bytes(50_000), 10_000_000) == 5_000_000
    assert unpacked_memory(bytes(50_000), 1_000) == 1_000
