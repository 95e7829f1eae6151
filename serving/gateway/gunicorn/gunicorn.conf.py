"""gunicorn's configuration: `gunicorn --config serving/gateway/gunicorn/gunicorn.conf.py`."""

import logging
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

if sys.flags.safe_path:  # gunicorn has put the current folder first nevertheless, which may hold a `serving` of its own
    sys.path[:] = [folder for folder in sys.path if folder != os.getcwd()]

# Before the fork, so that the workers need not load it each: what has no locks and no sockets, which gevent replaces.
import serving.backend.predictor
import serving.backend.protos.wire_pb2
import serving.contract.card
import serving.contract.image
import serving.contract.preprocessing  # noqa: F401
from serving.contract.errors import UsageError
from serving.gateway.access.keys import read_key_file
from serving.gateway.settings import read_settings, require_safe
from serving.gateway.workers.shared import SHARED  # made here, before the fork

_given = read_settings(os.environ)
_settings = _given.settings
require_safe(_settings)

wsgi_app = "serving.gateway.gunicorn.wsgi:app"
bind = f"{_settings.host}:{_settings.port}"
workers = _settings.processes
worker_class = {"gevent": "serving.gateway.gunicorn.gevent_worker.Worker", "gthread": "gthread"}[_settings.worker_class]
threads = _settings.threads + 8  # of gthread: the others tell whoever is too much so at once, and answer probes
preload_app = False  # the gRPC channel must be opened after the fork
keepalive = 75  # seconds; clients that pool their connections keep them
graceful_timeout = math.ceil(_settings.stop_seconds)
max_requests = _settings.max_requests
max_requests_jitter = math.ceil(_settings.max_requests / 10)  # so that not all workers are replaced at once
loglevel = "warning"
control_socket_disable = True

# Where the workers write their metrics: prometheus_client wants to know before it is imported, in any worker.
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
    """The arbiter runs: SIGHUP reads the API keys again, and ends no worker; SIGTERM first tells /readyz."""
    stop = server.handle_term

    def reload_keys():
        try:
            if _settings.key_file:
                read_key_file(_settings.key_file)  # a bad one changes nothing
                SHARED.renew()
        except UsageError as exc:
            logging.getLogger("gunicorn.error").error("%s; the keys stay as they were", exc)

    def drain():
        SHARED.drain()
        time.sleep(_settings.drain_seconds)
        stop()

    server.handle_hup, server.handle_term = reload_keys, drain


def pre_fork(server, worker):  # noqa: ARG001
    """A worker is about to be made."""
    worker.place = SHARED.take_place()


def post_fork(server, worker):  # noqa: ARG001
    """This process is the worker."""
    SHARED.place = worker.place


def pre_request(worker, req):  # noqa: ARG001
    """With its last request a worker makes room for a new one; what it has begun may take as long as any request."""
    if worker.nr + 1 >= worker.max_requests:
        worker.cfg.set("graceful_timeout", math.ceil(_settings.upload_seconds + _settings.backend_timeout_seconds))


def child_exit(server, worker):  # noqa: ARG001 - gunicorn's names
    """A worker has ended: its gauges count no longer; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
    SHARED.free_place(worker.place)


def on_exit(server):  # noqa: ARG001
    """The arbiter ends: the files of this run go, if the folder was made for it."""
    if "_made_here" in globals():
        shutil.rmtree(_made_here, ignore_errors=True)
