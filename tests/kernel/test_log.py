"""Every record becomes exactly one line of JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from seamline.kernel.signal import here, log
from seamline.kernel.signal.trace import TraceContext


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
    here.set_source(lambda: None)


class Call:
    """A call of payments."""

    module = "payments"
    origin = TraceContext(0xABC, 0, True)

    def span_id(self) -> int:
        return 0x12


def test_a_record_says_who_when_and_in_which_trace(lines: Any):
    """Module and trace come from the call at work, further fields from ``extra``."""
    here.set_source(Call)
    log.get("pay.cards").info("charged %s", "o-1", extra={"order": "o-1"})
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "module": "payments",
        "logger": "pay.cards",
        "message": "charged o-1",
        "workload": "all",
        "trace_id": f"{0xABC:032x}",
        "span_id": f"{0x12:016x}",
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


def _ring() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


class Broken:
    """Cannot be shown in any way."""

    def __str__(self) -> str:
        raise RuntimeError("not that either")

    __repr__ = __str__


STRANGE: dict[str, Callable[[], Any]] = {
    "a list in itself": _ring,
    "keys that are no names": lambda: {(1, 2): 3},
    "no number": lambda: float("nan"),
    "bytes": lambda: b"\x00\xff",
    "half a character": lambda: "\ud800 alone",
    "half a character written out": lambda: "\\ud800",
    "a whole one": lambda: "\U0001f600",
    "a number of many digits": lambda: 10**400,
    "a number of too many digits": lambda: 10**5_000,
    "a megabyte": lambda: "x" * 2**20,
    "what cannot be shown": Broken,
    "nothing": lambda: None,
}


def _line(message: Any, *args: Any, error: Exception | None = None, **extra: Any) -> dict[str, Any]:
    failed = (type(error), error, None) if error is not None else None
    record = log.get("x").makeRecord("x", logging.INFO, "x.py", 1, message, args, failed, extra=extra)
    text = log.JsonLines().format(record)
    assert len(text.splitlines()) == 1
    assert len(text) < 300_000
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    json.dumps(line, ensure_ascii=False).encode()
    return line


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_whatever_is_logged_becomes_a_line_that_strict_readers_read(make: Callable[[], Any]):
    """As a message, as an argument, as an extra field and as an exception: nothing raises and no line is lost."""
    thing = make()
    _line(thing)
    assert "with" in _line("with %s", thing)["message"]
    assert _line("beside", thing=thing)["message"] == "beside"
    assert "ValueError" in _line("failed", error=ValueError(thing))["exception"]


def test_structlog_joins_by_way_of_logging(lines: Any):
    """A line that structlog renders has the module and the trace of the call at work."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs], logger_factory=structlog.stdlib.LoggerFactory()
    )
    try:
        here.set_source(Call)
        structlog.get_logger("shop").info("paid", order="o-1")
    finally:
        structlog.reset_defaults()
    (line,) = lines()
    assert (line["message"], line["order"], line["logger"]) == ("paid", "o-1", "shop")
    assert (line["module"], line["trace_id"], line["span_id"]) == ("payments", f"{0xABC:032x}", f"{0x12:016x}")
