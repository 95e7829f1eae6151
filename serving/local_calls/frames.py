"""A frame: its length as a little-endian uint32, then so many bytes."""

import socket
import struct

LENGTH = struct.Struct("<I")
LARGEST = 2**31 - 1  # bytes, the most that a protobuf message may have


def send_frame(connection: socket.socket, data: bytes) -> None:
    """Write one frame to a stream. Raises ValueError for more than LARGEST bytes."""
    if len(data) > LARGEST:
        raise ValueError(f"a frame of {len(data)} bytes; the largest has {LARGEST}")
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive_frame(connection: socket.socket) -> bytes | None:
    """Read one frame from a stream; None where it ended before one began. Raises ConnectionError in its midst."""
    head = _read(connection, LENGTH.size)
    if not head:
        return None
    (size,) = LENGTH.unpack(head)
    if size > LARGEST:
        raise ConnectionError(f"a frame of {size} bytes was announced")
    data = _read(connection, size)
    if len(data) < size:
        raise ConnectionError("the stream ended inside a frame")
    return data


def _read(connection: socket.socket, size: int) -> bytes:
    """Read exactly `size` bytes; b"" where the stream is at its end."""
    parts, missing = [], size
    while missing:
        part = connection.recv(min(missing, 2**20))
        if not part:
            if missing == size:
                return b""
            raise ConnectionError("the stream ended inside a frame")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
