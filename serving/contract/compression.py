"""Undo gzip and deflate of strangers, within limits of bytes and of the ratio."""

import zlib

from serving.contract.errors import BadRequest, RequestTooLarge

CODINGS = ("gzip", "x-gzip", "deflate")
# Deflate packs up to 1,032 to 1; the numbers of a photo 3 to 1, those of a blank picture 400 to 1, but those are small.
MAX_RATIO = 100
FREE_BYTES = 1_000_000  # unpacked at any ratio


def unpack(data: bytes, coding: str, most: int, setting: str = "SIGHTLINE_MAX_REQUEST_BYTES") -> bytes:
    """Unpack one stream. coding: one of CODINGS. most: bytes that may come out; setting: its name.

    Raises RequestTooLarge, where it unpacks to more, or to MAX_RATIO times its size; BadRequest, where it is damaged.
    """
    by_ratio = max(FREE_BYTES, MAX_RATIO * len(data))
    unpacker = zlib.decompressobj(wbits=_window(coding, data))
    try:
        unpacked = unpacker.decompress(data, min(most, by_ratio) + 1)
    except zlib.error as exc:
        raise BadRequest(f"The {coding} body cannot be read: {exc}.") from exc
    if len(unpacked) > most:
        raise RequestTooLarge(f"The unpacked request has more than {most:,} bytes, the limit ({setting}).")
    if len(unpacked) > by_ratio:
        raise RequestTooLarge(
            f"The request of {len(data):,} bytes unpacks to more than {MAX_RATIO} times as many: the limit past "
            f"{FREE_BYTES:,} bytes.",
            hint=f"Send it without {coding}.",
        )
    if not unpacker.eof:
        raise BadRequest(f"The {coding} body is cut off.")
    if unpacker.unused_data.strip(b"\0"):
        raise BadRequest(f"The {coding} body goes on after its end.", hint="Compress the whole body as one stream.")
    return unpacked


def unpacked_memory(data: bytes, most: int) -> int:
    """Return an upper bound of the bytes that `unpack` returns."""
    return min(most, max(FREE_BYTES, MAX_RATIO * len(data)))


def _window(coding: str, data: bytes) -> int:
    """Return zlib's `wbits`. Some clients send deflate without zlib's header (RFC 9110, section 8.4.1.2)."""
    if coding != "deflate":
        return 16 + zlib.MAX_WBITS  # 16: with gzip's header
    has_header = len(data) > 1 and data[0] & 15 == zlib.DEFLATED and not (data[0] << 8 | data[1]) % 31  # RFC 1950
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
