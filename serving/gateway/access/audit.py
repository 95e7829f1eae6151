"""The audit log: a line for each change of the known set. Names of people and encodings stay out of it."""

import logging
from typing import Literal

from flask import g, request

from serving.gateway.telemetry.logs import FIELDS

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # whatever the log's own level is

Change = Literal["enrol", "replace", "forget"]


def audit(change: Change, gallery: str) -> None:
    """Say that the running request has changed a gallery: what, which, by whose key and from where."""
    fields = {"change": change, "gallery": gallery, "request_id": g.request_id, "key": g.get("key")}
    log.info("audit", extra={FIELDS: {**fields, "address": request.remote_addr}})
