"""The model server's process: ports, threads, start and end."""

import contextlib
import logging
import os
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import grpc

from serving.contract.errors import PortTaken
from serving.model_server.loading.servable import Servable
from serving.model_server.protocols.grpc_services import add_services
from serving.model_server.protocols.health import Health
from serving.model_server.protocols.predict_socket import PredictServer
from serving.model_server.protocols.rest import HttpServer
from serving.model_server.service import ModelServerService
from serving.model_server.versions.config_files import read_model_config_file, read_text_file
from serving.model_server.versions.protos import SSLConfig
from serving.model_server.versions.repository import Repository
from serving.runtimes.status import CallError

logger = logging.getLogger(__name__)

UNLIMITED = -1
MIN_PING_MILLISECONDS = (
    10_000  # between two pings of an idle connection; gRPC's default, and the stock server's, is 300 s
)
DRAIN_SECONDS = 30.0  # how long running calls may take once the server is told to stop


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """host, port: of gRPC; port 0 is off. socket_path: a Unix socket beside it, "" for none. threads: calls at a time.

    predict_socket_path: a Unix socket for Predict alone, "" for none; see `predict_socket`.
    rest_port 0 is off. metrics_path: "" for none. wait_for: models that have to answer before a port opens.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    socket_path: str = ""
    predict_socket_path: str = ""
    threads: int = 64
    channel_arguments: tuple[tuple[str, int | str], ...] = ()
    ssl_config_file: Path | None = None
    health: bool = False
    rest_port: int = 0
    rest_timeout_seconds: float = 30.0
    metrics_path: str = ""
    wait_for: tuple[str, ...] = ()
    config_file: Path | None = None
    config_poll_seconds: float = 0.0


def serve(repository: Repository[Servable], service: ModelServerService, settings: ServerSettings) -> None:
    """Answer until SIGTERM or SIGINT, then let running calls end.

    Raises PortTaken, and CallError when the models to wait for do not become available.
    """
    stop = _stop_on_signals()
    health = Health()
    repository.start()
    try:
        repository.wait_until_listed(stop.is_set)
        repository.wait_until_settled(settings.wait_for, what="servable", give_up=stop.is_set)
        if stop.is_set():
            return
        server = grpc_server(service, health, settings)
        with _rest(service, settings), _polled_config(service, settings, stop), _predict_socket(service, settings):
            server.start()  # after the socket is open: a client connected over gRPC may use it
            _log_addresses(settings)
            stop.wait()
            logger.info("draining")
            health.drain()
            server.stop(DRAIN_SECONDS).wait()
    finally:
        repository.close()
        if settings.socket_path:
            Path(settings.socket_path).unlink(missing_ok=True)


def grpc_server(service: ModelServerService, health: Health, settings: ServerSettings) -> grpc.Server:
    """Make a server with every service and its ports bound, not yet started. Raises PortTaken, CallError."""
    options = (
        ("grpc.so_reuseport", 0),  # two servers must not share a port silently
        ("grpc.max_receive_message_length", UNLIMITED),
        ("grpc.max_send_message_length", UNLIMITED),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        *settings.channel_arguments,
    )
    server = grpc.server(ThreadPoolExecutor(settings.threads, thread_name_prefix="grpc"), options=options)
    add_services(server, service)
    if settings.health:
        server.add_generic_rpc_handlers((health.handler(),))
    if settings.port:
        _bind(server, f"{settings.host}:{settings.port}", _credentials(settings.ssl_config_file))
    if settings.socket_path:
        _remove_stale(settings.socket_path)
        _bind(server, f"unix:{settings.socket_path}", None)
    return server


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _bind(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        hint = "Another server may be running: stop it, or choose another port with --port."
        raise PortTaken(f"cannot listen on {address}: it is in use or may not be used", hint=hint)


def _remove_stale(socket_path: str) -> None:
    """Remove the socket that a killed server left behind, which would keep ours from listening."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(socket_path).st_mode):
            os.unlink(socket_path)


def _credentials(path: Path | None) -> grpc.ServerCredentials | None:
    """Read TLS credentials from a text SSLConfig, whose fields hold PEM texts. Raises CallError."""
    if path is None:
        return None
    config: Any = read_text_file(path, SSLConfig)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


@contextlib.contextmanager
def _rest(service: ModelServerService, settings: ServerSettings) -> Iterator[None]:
    """Open the REST port while the block runs; requests that run when it ends may finish."""
    if not settings.rest_port:
        yield
        return
    timeout = settings.rest_timeout_seconds
    http = HttpServer(settings.host, settings.rest_port, service, timeout, settings.metrics_path)
    thread = threading.Thread(target=http.serve_forever, name="rest", daemon=True)
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        http.wait_until_idle(DRAIN_SECONDS)
        http.server_close()
        thread.join()


@contextlib.contextmanager
def _predict_socket(service: ModelServerService, settings: ServerSettings) -> Iterator[None]:
    """Open the Predict socket while the block runs; requests that run when it ends may finish."""
    if not settings.predict_socket_path:
        yield
        return
    with PredictServer(Path(settings.predict_socket_path), service, settings.threads) as server:
        thread = threading.Thread(target=server.serve_forever, name="predict socket", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.drain(DRAIN_SECONDS)
            thread.join()


@contextlib.contextmanager
def _polled_config(service: ModelServerService, settings: ServerSettings, stop: threading.Event) -> Iterator[None]:
    """Read the configuration file again in each period; a bad one is only logged."""
    path = settings.config_file
    if path is None or settings.config_poll_seconds <= 0:
        yield
        return

    def poll(path: Path) -> None:
        while not stop.wait(settings.config_poll_seconds):
            try:
                service.configure(read_model_config_file(path), lambda: not stop.is_set())
            except CallError as exc:
                logger.error("the configuration is unchanged: %s", exc)

    thread = threading.Thread(target=poll, args=(path,), name="config", daemon=True)
    thread.start()
    yield
    thread.join()


def _log_addresses(settings: ServerSettings) -> None:
    if settings.port:
        logger.info("listening for gRPC on %s:%d", settings.host, settings.port)
    if settings.socket_path:
        logger.info("listening for gRPC on unix:%s", settings.socket_path)
    if settings.predict_socket_path:
        logger.info("listening for Predict on %s", settings.predict_socket_path)
    if settings.rest_port:
        logger.info("listening for HTTP on %s:%d", settings.host, settings.rest_port)
