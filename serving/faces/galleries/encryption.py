"""Encryption at rest: of everything that a store writes about a person."""

import base64
import binascii
import hashlib
import hmac
import os
from typing import Protocol

from serving.contract.errors import FacesNotInstalled, GalleryKeyMissing, UsageError

KEY_BYTES = 32
NONCE_BYTES = 12  # AES-GCM, NIST SP 800-38D


class Cipher(Protocol):
    """The protocol of a store's encryption. `lookup` maps a text to the value that it is stored and found under."""

    def encrypt(self, data: bytes) -> bytes: ...

    def decrypt(self, data: bytes) -> bytes: ...

    def lookup(self, text: str) -> str: ...


class NoCipher:
    """Store everything as it is."""

    def encrypt(self, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        return data

    def lookup(self, text: str) -> str:
        return text


class AesCipher:
    """AES-256-GCM with a fresh nonce for each value; lookups by HMAC-SHA256 with a key derived from the same secret."""

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as exc:
            raise FacesNotInstalled(
                "Encryption needs the package cryptography.", hint="Install it: pip install cryptography."
            ) from exc
        self._cipher = AESGCM(key)
        self._lookup_key = hmac.digest(key, b"sightline faces lookup", hashlib.sha256)
        self._invalid = InvalidTag

    def encrypt(self, data: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, None)

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt. Raises GalleryKeyMissing for data of another key, and for plain data."""
        try:
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None)
        except (self._invalid, ValueError) as exc:
            raise GalleryKeyMissing(
                "The gallery was not encrypted with this key.",
                hint="Set SIGHTLINE_FACES_KEY to the key it was made with.",
            ) from exc

    def lookup(self, text: str) -> str:
        return hmac.digest(self._lookup_key, text.encode(), hashlib.sha256).hex()


def cipher_for(key: str) -> Cipher:
    """Return the cipher for a key: 32 bytes in base64, or "" for none. Raises UsageError for any other key."""
    if not key:
        return NoCipher()
    try:
        secret = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise UsageError(
            f"SIGHTLINE_FACES_KEY is not {KEY_BYTES} bytes in base64.", hint="Make one with: openssl rand -base64 32"
        )
    return AesCipher(secret)
