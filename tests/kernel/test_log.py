"""Every record becomes exactly one line of JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from seamline.kernel.signal import log


@pytest.fixture
def lines() -> Iterator[Any]:
    """Gives a function that returns the lines written so far, parsed."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.configure("info", stream=stream, fields={"workload": "all"})
    yield lambda: [json.loads(text) for text in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    log.set_trace_source(lambda: None)


def test_a_record_says_who_when_and_in_which_trace(lines: Any):
    """Module and trace come from the call at work, further fields from ``extra``."""
    log.set_module_source(lambda: "payments")
    log.set_trace_source(lambda: "abc123")
    log.get("pay.cards").info("charged %s", "o-1", extra={"order": "o-1"})
    log.set_module_source(lambda: "")
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "module": "payments",
        "logger": "pay.cards",
        "message": "charged o-1",
        "workload": "all",
        "trace_id": "abc123",
        "order": "o-1",
    }


def test_a_record_is_one_line_whatever_it_holds(lines: Any):
    """Line breaks, exceptions, huge messages, wrong formats and values that cannot be shown."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    logger = log.get("x")
    logger.info("two\nlines \x1b[31m\u2028")
    logger.error("failed", exc_info=ValueError("no\ncard"))
    logger.info("a" * 100_000)
    logger.info("mute", extra={"value": Mute()})
    logger.debug("not asked for")
    two, failed, long, mute = lines()
    assert two["message"] == "two\nlines \x1b[31m\u2028"
    assert "ValueError: no\ncard" in failed["exception"]
    assert len(long["message"]) < 20_000
    assert mute["value"] == "<Mute>"


def test_a_wrong_format_does_not_lose_the_record():
    """The template and its arguments stand in for the message that cannot be made."""
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%d of %d", (1,), None)
    line = json.loads(log.JsonLines().format(record))
    assert "%d of %d" in line["message"]
    assert "TypeError" in line["message"]
