"""What an event leaves behind at its consumer: counts, and spans of what failed though nothing is sampled."""

from __future__ import annotations

from pathlib import Path

from tests.events.shop import Sold, running, shop, until

from seamline import Module
from seamline.kernel.signal.trace import TraceContext
from seamline.module.context import CURRENT, CallContext


async def test_attempts_are_counted_and_the_failed_ones_and_the_dead_letter_are_recorded(tmp_path: Path):
    """In the trace of who published, linked to it, though that trace is not recorded; what went well leaves nothing."""
    books = Module("books")

    @books.on(Sold, attempts=2, backoff_s=0.0)
    async def enter(event: Sold) -> None:
        if event.sku == "bad":
            raise LookupError("no such account")

    async with running(tmp_path, shop(), books) as process:
        process.tracer.sample = 0.0
        call = CallContext("shop", "gateway", trace=TraceContext(0xABC, 0x123, False))
        token = CURRENT.set(call)
        await process.events.publish(Sold(sku="good", number=1))
        await process.events.publish(Sold(sku="bad", number=2))
        CURRENT.reset(token)
        await until(lambda: process.runtime.stats()["consumers"][0]["dead"] == 1 and process.handled() == 1)
        spans = [span for span in process.tracer.take() if span.module == "books" and span.trace_id == 0xABC]
        assert [(span.kind, span.status) for span in spans] == [
            ("consumer", "internal"), ("consumer", "internal"), ("internal", "dead_letter"),
        ]  # fmt: skip
        assert {span.parent_id for span in spans} == {0x123}
        assert spans[0].links == [(0xABC, 0x123)]
        assert spans[0].events is not None
        assert spans[0].events[0][1] == "exception"
        assert spans[0].attributes is not None
        assert spans[0].attributes["messaging.destination.name"] == "shop"
        (flow,) = [flow for flow in process.tracer.flows.take() if flow.side == "event"]
        assert (flow.caller, flow.callee, flow.calls, flow.errors) == ("shop", "books", 4, 3)
        assert flow.codes == {"internal": 2, "dead_letter": 1}
