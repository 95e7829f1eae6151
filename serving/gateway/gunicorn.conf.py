"""gunicorn's configuration: `gunicorn --config serving/gateway/gunicorn.conf.py`."""

import os
import shutil
import tempfile
from pathlib import Path

from serving.gateway.settings import read_settings, require_safe

_settings = read_settings(os.environ).settings
require_safe(_settings)

wsgi_app = "serving.gateway.wsgi:app"
bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = {"gevent": "serving.gateway.gevent_worker.Worker", "gthread": "gthread"}[_settings.worker_class]
threads = _settings.threads + 8  # of gthread: the others tell whoever is too much so at once, and answer probes
preload_app = False  # the gRPC channel must be opened after the fork
keepalive = 75  # seconds; clients that pool their connections keep them
graceful_timeout = 4  # seconds for requests in flight when told to stop; `sightline serve` stops within 5
loglevel = "warning"
control_socket_disable = True

# Where the workers write their metrics: prometheus_client wants to know before it is imported, in any worker.
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
if _METRICS not in os.environ:
    os.environ[_METRICS] = tempfile.mkdtemp(prefix="sightline-metrics-")
    _made_here = os.environ[_METRICS]
else:
    Path(os.environ[_METRICS]).mkdir(parents=True, exist_ok=True)


def child_exit(server, worker):  # noqa: ARG001 - gunicorn's names
    """A worker has ended: its gauges count no longer; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server):  # noqa: ARG001
    """The arbiter ends: the files of this run go, if the folder was made for it."""
    if "_made_here" in globals():
        shutil.rmtree(_made_here, ignore_errors=True)
