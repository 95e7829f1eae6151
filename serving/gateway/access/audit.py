"""The audit log: one line per change of the known people. It never holds names of people or encodings."""

import logging
from typing import Literal

from flask import g, request

from serving.contract.logs import FIELDS

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # even where SIGHTLINE_LOG_LEVEL is higher

Change = Literal["enrol", "replace", "forget"]


def audit(change: Change, gallery: str) -> None:
    """Log that the running request has changed a gallery, with the key's name and the client's address."""
    fields = {"change": change, "gallery": gallery, "request_id": g.request_id, "key": g.get("key")}
    log.info("audit", extra={FIELDS: {**fields, "address": request.remote_addr}})
