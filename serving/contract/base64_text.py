"""Base64 as clients write it, to bytes."""

import binascii
import re
from urllib.parse import unquote

SPACE = b" \t\n\f\r\v"
URL_SAFE = bytes.maketrans(b"-_", b"+/")  # RFC 4648, section 5
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
MOST_PADDING = 2
DATA_URL = re.compile(r"\s*data:", re.IGNORECASE)
# Its type and parameters; a file's name among them may hold a comma that should have been escaped.
PARAMETERS = re.compile(r".{0,1000}?;\s*base64\s*,", re.IGNORECASE | re.DOTALL)


def decode_base64(text: str) -> bytes:
    """Decode base64 in either alphabet, with or without padding, white space anywhere, or as a `data:` URL.

    Raises ValueError for anything else. Linear in the length of the text.
    Source: the forgiving decoder of browsers, https://infra.spec.whatwg.org/#forgiving-base64-decode, with the second
    alphabet; https://fetch.spec.whatwg.org/#data-url-processor.
    """
    data = _payload(text).translate(URL_SAFE, SPACE)
    body = data.rstrip(b"=")
    if len(data) - len(body) > MOST_PADDING:
        raise ValueError(f"it ends with {len(data) - len(body)} padding characters")
    if unknown := body.translate(None, ALPHABET):
        raise ValueError(f"it holds the character {chr(unknown[0])!r}")
    if len(body) % 4 == 1:
        raise ValueError(f"it has {len(body)} characters, a length that no base64 has")
    return binascii.a2b_base64(body + b"=" * (-len(body) % 4))


def _payload(text: str) -> bytes:
    """Return the base64 in ASCII, from inside a `data:` URL where it is one."""
    if (url := DATA_URL.match(text)) is not None:
        parameters = PARAMETERS.match(text, url.end())
        if parameters is None:
            raise ValueError("it is a data: URL without base64")
        text = text[parameters.end() :]
        text = unquote(text) if "%" in text else text
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as exc:
        raise ValueError(f"it holds the character {text[exc.start]!r}") from None
