"""The model server as a whole: ports, threads, start and end."""

import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType

import grpc

from serving.contract.errors import PortTaken
from serving.model_server.repository import Repository
from serving.model_server.runner import SavedModel
from serving.model_server.servicer import add_services

logger = logging.getLogger(__name__)

UNLIMITED = -1
DRAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """host, port: where to listen; port 0 is off. threads: how many calls run or wait at a time."""

    host: str = "127.0.0.1"
    port: int = 8500
    threads: int = 64
    channel_arguments: tuple[tuple[str, int | str], ...] = field(default=())


def serve(repository: Repository[SavedModel], settings: GrpcSettings) -> None:
    """Answer until SIGTERM or SIGINT, then let running calls end. Raises PortTaken."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    server = grpc_server(repository, settings)
    repository.start()
    server.start()
    logger.info("listening for gRPC on %s:%d", settings.host, settings.port)
    stop.wait()
    logger.info("draining")
    server.stop(DRAIN_SECONDS).wait()
    repository.close()


def grpc_server(repository: Repository[SavedModel], settings: GrpcSettings) -> grpc.Server:
    """A server with every service and its port bound, not yet started. Raises PortTaken."""
    options = (
        ("grpc.so_reuseport", 0),  # two servers must not share a port in silence
        ("grpc.max_receive_message_length", UNLIMITED),
        ("grpc.max_send_message_length", UNLIMITED),
        *settings.channel_arguments,
    )
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="grpc")
    server = grpc.server(threads, options=options)
    add_services(server, repository)
    if settings.port:
        _bind(server, f"{settings.host}:{settings.port}")
    return server


def _bind(server: grpc.Server, address: str) -> None:
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise PortTaken(f"cannot listen on {address}: it is in use or not ours", hint="Choose another with --port.")
