"""Logs: one JSON object per line for programs, or one line of text for people."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

ENCODER = json.JSONEncoder(default=str)
FIELDS = "fields"  # attribute of a record: the fields of a line beside its message


class JsonFormatter(logging.Formatter):
    """Format time (UTC), level, logger, message, the record's fields, and a traceback as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """Format time, level, message, then name=value, for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        flat = {**fields, **fields.get("milliseconds", {})}
        flat.pop("milliseconds", None)
        return " ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in flat.items())])


def configure(form: Literal["json", "text"], level: str) -> None:
    """Send all logs to stderr in this form. Called once, by the entry point."""
    for unused in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, unused, False)  # no line holds them: https://docs.python.org/3/howto/logging.html#optimization
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
