"""gunicorn's configuration: `gunicorn --config serving/gateway/gunicorn/gunicorn.conf.py`."""

import contextlib
import logging
import math
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

if sys.flags.safe_path:  # gunicorn has put the current folder first nevertheless, which may hold a `serving` of its own
    sys.path[:] = [folder for folder in sys.path if folder != os.getcwd()]

# Imported before the fork, shared by the workers. Only modules without locks and sockets: gevent replaces those later.
import serving.backend.predictor
import serving.backend.protos.wire_pb2
import serving.contract.card
import serving.contract.image
import serving.contract.preprocessing  # noqa: F401
from serving.contract.errors import UsageError
from serving.gateway.access.keys import read_key_file
from serving.gateway.settings import ARBITER_BEAT, read_settings, require_safe, url_host
from serving.gateway.workers.shared import SHARED  # created here, before the fork

_given = read_settings(os.environ)
_settings = _given.settings
require_safe(_settings)

wsgi_app = "serving.gateway.gunicorn.wsgi:app"
bind = f"{url_host(_settings.host)}:{_settings.port}"
workers = _settings.processes
worker_class = {"gevent": "serving.gateway.gunicorn.gevent_worker.Worker", "gthread": "gthread"}[_settings.worker_class]
threads = _settings.threads + 8  # with gthread: the extra ones refuse excess requests at once and answer probes
preload_app = False  # the gRPC channel must be opened after the fork
keepalive = 75  # seconds; longer than the usual connection pool of a client
graceful_timeout = math.ceil(_settings.stop_seconds)
max_requests = _settings.max_requests
max_requests_jitter = math.ceil(_settings.max_requests / 10)  # so that the workers are not replaced at the same time
forwarder_headers = ""  # no header changes the path, wherever it comes from
loglevel = "warning"
# gunicorn's own lines as all others: its format writes several lines, and text where JSON was asked for
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"ours": {"()": "serving.contract.logs.formatter", "form": _settings.log_format}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
    "root": {"level": _settings.log_level, "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "WARNING", "handlers": ["stderr"], "propagate": False}},
}
control_socket_disable = True

FILES_BESIDE = 100  # open files of a worker that are no connections of clients

# Folder of the workers' metrics. prometheus_client reads the variable when a worker imports it.
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
if _METRICS not in os.environ:
    os.environ[_METRICS] = tempfile.mkdtemp(prefix="sightline-metrics-")
    _made_here = os.environ[_METRICS]
else:
    Path(os.environ[_METRICS]).mkdir(parents=True, exist_ok=True)


def on_starting(server):
    """The arbiter starts: warn once, not in each worker."""
    for warning in _given.warnings:
        server.log.warning("%s", warning)


def when_ready(server):
    """Replace the arbiter's signal handlers: SIGHUP reads the keys again; SIGTERM makes /readyz answer 503 first."""
    stop = server.handle_term

    def reload_keys():
        try:
            if _settings.key_file:
                read_key_file(_settings.key_file)  # an unreadable one changes nothing
                SHARED.renew()
        except UsageError as exc:
            logging.getLogger("gunicorn.error").error("%s The keys stay as they were.", exc)

    def drain():
        SHARED.drain()
        time.sleep(_settings.drain_seconds)
        stop()

    server.handle_hup, server.handle_term = reload_keys, drain
    beat = os.environ.get(ARBITER_BEAT)
    if beat:
        murder_workers = server.murder_workers

        def beat_and_murder_workers():
            """Touch the supervisor's file: the arbiter calls this in each turn of its loop, once a second."""
            with contextlib.suppress(OSError):  # the disk is full
                Path(beat).touch()
            murder_workers()

        server.murder_workers = beat_and_murder_workers


def pre_fork(server, worker):  # noqa: ARG001
    """Give the next worker its place in the shared memory."""
    worker.place = SHARED.take_place()


def post_fork(server, worker):  # noqa: ARG001
    """Take the place, in the worker, and as many open files as the system allows."""
    SHARED.place = worker.place
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if worker_class != "gthread":
        worker.limits = _limits(math.inf if files == resource.RLIM_INFINITY else files)


def _limits(files):
    """The limits of a worker's connections."""
    from serving.gateway.gunicorn.connections import SPARE, Limits

    most = max(2, min(_settings.max_connections, files - SPARE - FILES_BESIDE))
    most_of_one = _settings.connections_per_address or (0 if _settings.trusted_proxies else most // 2)
    return Limits(
        most,
        most_of_one,
        idle_seconds=keepalive,
        send_seconds=_settings.send_seconds,
        rests=not _settings.trusted_proxies,  # a proxy's connection carries requests of many clients
    )


def pre_request(worker, req):  # noqa: ARG001
    """Let the requests of a worker that is about to be replaced take as long as any request."""
    if worker.nr + 1 >= worker.max_requests:
        worker.cfg.set("graceful_timeout", math.ceil(_settings.upload_seconds + _settings.backend_timeout_seconds))


def child_exit(server, worker):  # noqa: ARG001 - gunicorn's names
    """Drop the gauges of a worker that has ended; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
    SHARED.free_place(worker.place)


def on_exit(server):  # noqa: ARG001
    """Remove the folder of metrics, if this run created it."""
    if "_made_here" in globals():
        shutil.rmtree(_made_here, ignore_errors=True)
