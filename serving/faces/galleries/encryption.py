"""Encryption at rest: what a store writes of a person, sealed with a key that is not in it."""

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
    """Closes and opens what is stored, and makes the values by which it is looked up."""

    def encrypt(self, data: bytes) -> bytes: ...

    def decrypt(self, data: bytes) -> bytes: ...

    def lookup(self, text: str) -> str: ...


class NoCipher:
    """Stores everything as it is."""

    def encrypt(self, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        return data

    def lookup(self, text: str) -> str:
        return text


class AesCipher:
    """AES-256-GCM, a fresh nonce for each value; lookups by HMAC-SHA256 under a key derived from the same secret."""

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as exc:
            raise FacesNotInstalled(
                "encryption wants the package cryptography", hint="pip install cryptography"
            ) from exc
        self._cipher = AESGCM(key)
        self._lookup_key = hmac.digest(key, b"sightline faces lookup", hashlib.sha256)
        self._invalid = InvalidTag

    def encrypt(self, data: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, None)

    def decrypt(self, data: bytes) -> bytes:
        """Raises GalleryKeyMissing where another key closed it, or nobody did."""
        try:
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None)
        except (self._invalid, ValueError) as exc:
            raise GalleryKeyMissing(
                "the gallery was not sealed with this key", hint="Set SIGHTLINE_FACES_KEY to the key it was made with."
            ) from exc

    def lookup(self, text: str) -> str:
        return hmac.digest(self._lookup_key, text.encode(), hashlib.sha256).hex()


def cipher_for(key: str) -> Cipher:
    """The seal for a key in base64 (32 bytes), or none for "". Raises UsageError for a key of another length."""
    if not key:
        return NoCipher()
    try:
        secret = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise UsageError(
            f"SIGHTLINE_FACES_KEY is not {KEY_BYTES} bytes in base64", hint="Make one with: openssl rand -base64 32"
        )
    return AesCipher(secret)
