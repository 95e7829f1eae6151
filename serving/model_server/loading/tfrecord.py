"""TFRecord files, read as TensorFlow reads them.

A record is its length (uint64), the length's checksum, its bytes, and their checksum; checksums are CRC-32C, masked.
Source: tensorflow/core/lib/io/record_reader.cc.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
MASK_DELTA = 0xA282EAD8


class DamagedRecord(Exception):
    """A file is cut short, or its bytes are not those that were written."""


def read_records(path: Path) -> Iterator[bytes]:
    """Read the records of a file, in order. Raises DamagedRecord, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while (at := file.tell()) < size:
            (length,) = _LENGTH.unpack(_checked(file, _LENGTH.size, at))
            if length > size - file.tell():
                raise DamagedRecord(f"truncated record at {at}")
            yield _checked(file, length, at)


def masked_crc(data: bytes) -> int:
    """Compute CRC-32C, rotated and shifted, so that bytes that hold checksums can be checked as well."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def _checked(file: BinaryIO, count: int, at: int) -> bytes:
    data, checksum = file.read(count), file.read(_CHECKSUM.size)
    if len(data) < count or len(checksum) < _CHECKSUM.size:
        raise DamagedRecord(f"truncated record at {at}")
    if _CHECKSUM.unpack(checksum) != (masked_crc(data),):
        raise DamagedRecord(f"corrupted record at {at}")
    return data
