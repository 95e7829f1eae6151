"""Lines of the log: one each, whatever a client sends."""

import json
import logging

import pytest

from serving.contract.logs import FIELDS, JsonFormatter, TextFormatter, formatter

FORGED = "/a\n2026-01-01 00:00:00 ERROR forged\r\x1b[2J\u2028x"


def record(message: str = "request", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.ERROR, "", 0, message, (), None)
    made.__dict__[FIELDS] = fields
    return made


@pytest.mark.parametrize("each", [record(path=FORGED), record(FORGED)], ids=["field", "message"])
def test_no_line_can_be_forged(each: logging.LogRecord) -> None:
    for form in (JsonFormatter(), TextFormatter()):
        text = form.format(each)
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text
    assert r"/a\n2026" in TextFormatter().format(each)


def test_a_traceback_in_text_begins_no_line_of_the_log() -> None:
    try:
        raise ZeroDivisionError("oops\n2026-01-01 00:00:00 ERROR forged")
    except ZeroDivisionError as exc:
        info = (type(exc), exc, exc.__traceback__)
    made = logging.LogRecord("x", logging.ERROR, "", 0, "it broke", (), info)
    first, *others = formatter("text").format(made).split("\n")
    assert first.endswith("ERROR it broke")
    assert all(line.startswith("    | ") for line in others)
    assert "oops" in json.loads(formatter("json").format(made))["traceback"]
