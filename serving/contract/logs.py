"""Logs of every process: one JSON object per line for programs, or one line of text for people."""

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

ENCODER = json.JSONEncoder(default=str)
FIELDS = "fields"  # attribute of a record: the fields of a line beside its message
# Control characters and line separators, which a client may send in a path to forge a line or to rule a terminal
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
CONTINUED = "    | "  # begins each line of a traceback, which no line of the log begins with

log = logging.getLogger(__name__)


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
    """Format time, level, message, then name=value, for people. Control characters are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        flat = {**fields, **fields.get("milliseconds", {})}
        flat.pop("milliseconds", None)
        return escaped(" ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in flat.items())]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).split("\n")
        return "\n".join(CONTINUED + escaped(line) for line in lines)


def escaped(text: str) -> str:
    """Write control characters as Python does: a line break becomes a backslash and an n."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def formatter(form: Literal["json", "text"]) -> logging.Formatter:
    """Make the formatter of this form."""
    return JsonFormatter() if form == "json" else TextFormatter()


def configure(form: Literal["json", "text"], level: str) -> None:
    """Send all logs, warnings and uncaught exceptions to stderr in this form. Called once, by the entry point."""
    for unused in ("logThreads", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, unused, False)  # no line holds them: https://docs.python.org/3/howto/logging.html#optimization
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
    else:
        log.critical("the process ends", exc_info=(kind, exc, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "?"
        log.error("the thread %s ended", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
