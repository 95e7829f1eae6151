"""gunicorn's configuration: `gunicorn --config serving/gateway/gunicorn.conf.py`."""

import os

from serving.gateway.settings import read_settings

_settings = read_settings(os.environ).settings

wsgi_app = "serving.gateway.wsgi:app"
bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
preload_app = False  # the gRPC channel must be opened after the fork
keepalive = 75  # seconds; clients that pool their connections keep them
graceful_timeout = 4  # seconds for requests in flight when told to stop; `sightline serve` stops within 5
loglevel = "warning"
control_socket_disable = True
