"""Addresses of model servers: `host:port`, `unix:/path`, and the addresses of a name."""

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

UNIX = "unix:"
# A server with gRPC's defaults, such as TensorFlow Serving, ends an idle connection that is pinged within 300 s of the
# last ping: GOAWAY, too_many_pings. While data is on its way, TCP_USER_TIMEOUT (20 s) finds a vanished peer.
KEEPALIVE_SECONDS = 330.0


def addresses_of(target: str) -> Sequence[str]:
    """Resolve a target to its addresses, as gRPC writes them. Raises OSError where a name cannot be resolved."""
    if target.startswith(UNIX):
        return (target,)
    rows = socket.getaddrinfo(host_of(target), target.rpartition(":")[2], type=socket.SOCK_STREAM)
    found: dict[tuple[Any, int], None] = dict.fromkeys((address[0], int(address[1])) for *_, address in rows)
    return tuple(f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}" for host, port in found)


def check_target(target: str) -> str:
    """Return the target. Raises ValueError where it is neither host:port nor unix:/path."""
    host, _, port = target.rpartition(":")
    is_host = host and (":" not in host or (host.startswith("[") and host.endswith("]")))
    if not target.startswith(UNIX) and not (is_host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"{target!r} is not host:port")
    return target


def host_of(target: str) -> str:
    return target.rpartition(":")[0].strip("[]")


def is_name(target: str) -> bool:
    """Return True for a host that has to be resolved, and may move."""
    if target.startswith(UNIX):
        return False
    try:
        ipaddress.ip_address(host_of(target))
    except ValueError:
        return True
    return False
